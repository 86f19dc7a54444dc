#include <gtest/gtest.h>

#include "tests/server/http/api_fixture.h"

namespace nsa {
namespace {

class ModelsTest : public ApiTest {
 protected:
  void SetUp() override { Start(); }
};

constexpr char kModel[] =
    R"({"id":"tiny/test","object":"model","created":1700000000,"owned_by":"nsa-serve",)"
    R"("max_model_len":512,"nsa":{"num_layers":0,"num_kv_heads":0,"block_tokens":64,)"
    R"("num_selected_blocks":16,"window_tokens":512,"span_tokens":32,"span_stride":16}})";

TEST_F(ModelsTest, ListsTheServedModel) {
  const RawResponse response = Fetch(port(), Get("/v1/models"));
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, std::string(R"({"object":"list","data":[)") + kModel + "]}");
}

TEST_F(ModelsTest, GivesOneByName) {
  EXPECT_EQ(Fetch(port(), Get("/v1/models/tiny/test")).body, kModel);
  EXPECT_EQ(Fetch(port(), Get("/v1/models/tiny%2Ftest")).body, kModel);
}

TEST_F(ModelsTest, AnUnknownOneIsNotFound) {
  for (const char* name : {"tiny", "tiny/test2", "%C3%28"}) {
    EXPECT_EQ(ErrorOf(Fetch(port(), Get(std::string("/v1/models/") + name))),
              R"(404 invalid_request_error "model_not_found" "model")");
  }
  EXPECT_EQ(ErrorOf(Fetch(port(), Get("/v1/models/"))),
            R"(404 invalid_request_error "not_found" null)");
}

}  // namespace
}  // namespace nsa
