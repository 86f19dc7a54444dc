#include "server/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/machine.h"

namespace nsa {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using Verdict = Finding::Verdict;

ServerConfig Healthy() {
  ServerConfig config;
  config.model = "models/nsa-story-27m";
  config.http_port = config.grpc_port = 0;
  config.device.kind = DeviceChoice::Kind::kCpu;
  config.max_constraint_bytes = config.max_total_body_bytes = int64_t{1} << 24;
  return config;
}

// What is not ok.
std::vector<Finding> Complaints(const ServerConfig& config) {
  std::vector<Finding> told;
  std::vector<Finding> findings =
      Examine(config, [&](const Finding& finding) { told.push_back(finding); });
  EXPECT_EQ(told.size(), findings.size());
  std::erase_if(findings, [](const Finding& finding) { return finding.verdict == Verdict::kOk; });
  for (const Finding& finding : findings) EXPECT_THAT(finding.advice, Not(IsEmpty()));
  return findings;
}

auto Complaint(Verdict verdict, const std::string& subject, const std::string& detail) {
  return AllOf(Field(&Finding::verdict, verdict), Field(&Finding::subject, subject),
               Field(&Finding::detail, HasSubstr(detail)));
}

TEST(DoctorTest, FindsNothingWhereAllIsWellAndHasGenerated) {
  const std::vector<Finding> findings = Examine(Healthy(), [](const Finding&) {});
  EXPECT_TRUE(IsHealthy(findings));
  EXPECT_EQ(SummaryOf(findings), "The server will start.");
  std::vector<std::string> subjects;
  for (const Finding& finding : findings) {
    EXPECT_EQ(finding.verdict, Verdict::kOk) << finding.detail;
    EXPECT_THAT(finding.advice, IsEmpty());
    subjects.push_back(finding.subject);
  }
  EXPECT_THAT(subjects,
              ElementsAre("machine", "device", "open files", "port", "port", "access", "tokenizer",
                          "config", "weights", "kv cache", "memory", "context", "generation"));
  EXPECT_THAT(findings.back().detail, HasSubstr("8 tokens, "));
}

TEST(DoctorTest, GoesOnAfterProblems) {
  ServerConfig config = Healthy();
  config.model = "models/nothing-here";
  config.api_key_file = "models/no-keys";
  config.host = "203.0.113.1";  // an address for documentation, nobody's
  EXPECT_THAT(Complaints(config),
              ElementsAre(Complaint(Verdict::kProblem, "port", "203.0.113.1"),
                          Complaint(Verdict::kProblem, "port", "203.0.113.1"),
                          Complaint(Verdict::kProblem, "access", "models/no-keys"),
                          Complaint(Verdict::kProblem, "tokenizer", "models/nothing-here"),
                          Complaint(Verdict::kProblem, "model", "models/nothing-here")));
}

TEST(DoctorTest, WithoutAModelEverythingElseIsExamined) {
  ServerConfig config = Healthy();
  config.model = "";
  config.host = "203.0.113.1";
  EXPECT_THAT(Complaints(config),
              ElementsAre(Complaint(Verdict::kProblem, "port", "203.0.113.1"),
                          Complaint(Verdict::kProblem, "port", "203.0.113.1"),
                          Complaint(Verdict::kWarning, "access", "no key is asked for"),
                          Complaint(Verdict::kProblem, "model", "--model=FOLDER is missing")));
}

TEST(DoctorTest, MemoryMustHoldModelConstraintsAndThreeBudgetsOfBodies) {
  const MachineMemory memory = GetMachineMemory();
  const int64_t limit = memory.container_limit.value_or(memory.total);
  constexpr int64_t kRoom = int64_t{1} << 30;  // for the bundled model and 512 MiB of caches
  ASSERT_GT(limit, kRoom);
  ServerConfig config = Healthy();
  config.max_constraint_bytes = limit - kRoom;
  EXPECT_THAT(Complaints(config), IsEmpty());
  config.max_constraint_bytes = limit - (kRoom / 2);  // as much as the caches
  EXPECT_THAT(Complaints(config),
              ElementsAre(Complaint(Verdict::kWarning, "memory", "constraints ")));
  config.max_constraint_bytes = 0;
  config.max_total_body_bytes = limit / 3;
  EXPECT_THAT(Complaints(config),
              ElementsAre(Complaint(Verdict::kWarning, "memory", "bodies and answers ")));
}

TEST(DoctorTest, ABuildWithoutCudaAdvisesTheBuildThatHasIt) {
  ServerConfig config = Healthy();
  config.device.kind = DeviceChoice::Kind::kCuda;
  const std::vector<Finding> complaints = Complaints(config);
  if (complaints.empty() || complaints[0].detail.find("this build") == std::string::npos) {
    GTEST_SKIP() << "this build has CUDA";
  }
  EXPECT_EQ(complaints[0].advice, "Take the build with CUDA, or use --device=cpu.");
}

TEST(DoctorTest, WarnsOfWhatWorksButMayNotBeMeant) {
  ServerConfig config = Healthy();
  config.host = "0.0.0.0";
  config.num_threads = 1000;
  config.kv_cache_bytes = int64_t{24} << 20;
  EXPECT_THAT(Complaints(config),
              ElementsAre(Complaint(Verdict::kWarning, "machine", "--threads is 1000"),
                          Complaint(Verdict::kWarning, "access", "no key is asked for"),
                          Complaint(Verdict::kWarning, "context", "the longest request has 8192")));
}

TEST(DoctorTest, FilesAreCounted) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  ServerConfig config = Healthy();
  config.max_connections = 200;
  for (const rlim_t limit : {264, 263}) {
    const rlimit lowered{.rlim_cur = limit, .rlim_max = before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &lowered), 0);
    const std::vector<Finding> complaints = Complaints(config);
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    if (limit == 264) {
      EXPECT_THAT(complaints, IsEmpty());
      continue;
    }
    ASSERT_EQ(complaints.size(), 1U);
    EXPECT_THAT(complaints[0].advice, HasSubstr("ulimit -n 264"));
  }
}

TEST(DoctorTest, FlagsThatContradictEachOtherOnThisDeviceAreAProblem) {
  ServerConfig config = Healthy();
  config.max_num_seqs = 600;  // more than the CPU's step of 512 tokens
  EXPECT_THAT(Complaints(config), testing::Contains(Complaint(Verdict::kProblem, "flags",
                                                              "--max-batched-tokens is 512")));
}

TEST(DoctorTest, AModelThatIsDamagedIsAProblem) {
  namespace fs = std::filesystem;
  const std::string folder = testing::TempDir() + "doctor_test." + std::to_string(getpid());
  fs::remove_all(folder);
  fs::copy("models/nsa-story-27m", folder);
  fs::resize_file(folder + "/model.safetensors", 1 << 20);
  ServerConfig config = Healthy();
  config.model = folder;
  EXPECT_THAT(Complaints(config), ElementsAre(Complaint(Verdict::kProblem, "model", folder)));
  fs::remove_all(folder);
}

TEST(DoctorTest, FormatsVerdictSubjectDetailAndAdviceBelow) {
  EXPECT_EQ(FormatFinding({.subject = "device", .detail = "CPU, 2 threads"}),
            "ok       device      CPU, 2 threads\n");
  EXPECT_EQ(FormatFinding({Verdict::kProblem, "port", "taken", "Take another."}),
            "problem  port        taken\n                     Take another.\n");
  EXPECT_EQ(SummaryOf({{Verdict::kProblem}, {Verdict::kWarning}, {Verdict::kWarning}}),
            "1 problem, 2 warnings");
  EXPECT_EQ(SummaryOf({{Verdict::kWarning}, {}}), "The server will start; 1 warning.");
}

}  // namespace
}  // namespace nsa
