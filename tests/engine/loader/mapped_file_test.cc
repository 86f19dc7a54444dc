#include "engine/loader/mapped_file.h"

#include <fstream>
#include <utility>

#include "gtest/gtest.h"

namespace nsa {
namespace {

TEST(MappedFileTest, HoldsTheFilesBytesAndMoves) {
  const std::string path = testing::TempDir() + "mapped_file";
  std::ofstream(path) << "some text";
  absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->text(), "some text");
  MappedFile moved = *std::move(file);
  EXPECT_EQ(moved.text(), "some text");
  EXPECT_EQ(moved.bytes().size(), 9U);
}

TEST(MappedFileTest, NamesTheFileAlone) {
  const absl::Status status = MappedFile::Open("/nowhere/at/all.json").status();
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_EQ(status.message(), "all.json: no such file");
  EXPECT_EQ(MappedFile::Open(testing::TempDir()).status().message(), ": not a file");
}

TEST(FileNameTest, IsTheLastComponent) {
  EXPECT_EQ(FileName("a/b/c.txt"), "c.txt");
  EXPECT_EQ(FileName("c.txt"), "c.txt");
}

}  // namespace
}  // namespace nsa
