#include "server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

namespace nsa {
namespace {

using testing::HasSubstr;
using Variables = std::map<std::string, std::string>;

absl::StatusOr<CommandLine> Parse(const std::vector<std::string>& arguments,
                                  const Variables& variables = {}) {
  return ParseServerConfig(arguments, [&](const std::string& name) {
    const auto it = variables.find(name);
    return it == variables.end() ? std::string() : it->second;
  });
}

// The configuration of a command line that also names a model.
ServerConfig Config(std::vector<std::string> arguments, const Variables& variables = {}) {
  arguments.push_back("--model=m");
  const auto command_line = Parse(arguments, variables);
  EXPECT_TRUE(command_line.ok()) << command_line.status();
  return command_line.ok() ? command_line->config : ServerConfig();
}

std::string Refusal(std::vector<std::string> arguments, const Variables& variables = {}) {
  arguments.push_back("--model=m");
  const absl::Status status = Parse(arguments, variables).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(ConfigTest, Defaults) {
  const ServerConfig config = Config({});
  EXPECT_EQ(config.model, "m");
  EXPECT_EQ(config.host, "127.0.0.1");
  EXPECT_EQ(config.http_port, 8000);
  EXPECT_EQ(config.grpc_port, 9000);
  EXPECT_EQ(config.device.kind, DeviceChoice::Kind::kAuto);
  EXPECT_EQ(config.gpu_memory_utilization, 0.9);
  EXPECT_TRUE(config.cuda_graphs);
  EXPECT_TRUE(config.prefix_caching);
  EXPECT_FALSE(config.kv_cache_dtype.has_value());
  EXPECT_EQ(config.attention, "");
  EXPECT_GE(config.num_threads, 1);
  EXPECT_EQ(config.drain_timeout, absl::Seconds(30));
  EXPECT_EQ(config.liveness_timeout, absl::Seconds(30));
}

TEST(ConfigTest, AccessAndLimits) {
  const ServerConfig config = Config(
      {"--api-key-file=k", "--protect-probes=on", "--tls-cert=c", "--tls-key=p",
       "--cors-origins=https://a.b", "--max-body-bytes=1MiB", "--max-header-bytes=8KiB",
       "--max-connections=7", "--max-streams=8", "--idle-timeout=5", "--read-timeout=6",
       "--max-queued-tokens=1000", "--max-concurrent-requests=20", "--max-total-body-bytes=1MiB",
       "--max-constraint-bytes=2GiB", "--strict=on", "--console=off"});
  EXPECT_FALSE(config.console);
  EXPECT_TRUE(Config({}).console);
  EXPECT_TRUE(config.strict);
  EXPECT_FALSE(Config({}).strict);
  EXPECT_EQ(config.api_key_file, "k");
  EXPECT_TRUE(config.protect_probes);
  EXPECT_EQ(config.tls_cert, "c");
  EXPECT_EQ(config.tls_key, "p");
  EXPECT_EQ(config.cors_origins, std::vector<std::string>{"https://a.b"});
  EXPECT_EQ(config.max_body_bytes, 1 << 20);
  EXPECT_EQ(config.max_header_bytes, 8 << 10);
  EXPECT_EQ(config.max_connections, 7);
  EXPECT_EQ(config.max_streams, 8);
  EXPECT_EQ(config.idle_timeout, absl::Seconds(5));
  EXPECT_EQ(config.read_timeout, absl::Seconds(6));
  EXPECT_EQ(config.max_queued_tokens, 1000);
  EXPECT_EQ(config.max_concurrent_requests, 20);
  EXPECT_EQ(config.max_total_body_bytes, 1 << 20);
  EXPECT_EQ(config.max_constraint_bytes, int64_t{2} << 30);
}

TEST(ConfigTest, Logs) {
  const ServerConfig defaults = Config({});
  EXPECT_EQ(defaults.log_format, LogFormat::kText);
  EXPECT_EQ(defaults.access_log, AccessLog::kNoProbes);
  EXPECT_EQ(defaults.log_prompts_bytes, 0);
  const ServerConfig config =
      Config({"--log-format=json", "--access-log=on", "--log-prompts=1KiB"});
  EXPECT_EQ(config.log_format, LogFormat::kJson);
  EXPECT_EQ(config.access_log, AccessLog::kOn);
  EXPECT_EQ(config.log_prompts_bytes, 1024);
  EXPECT_EQ(Refusal({"--log-prompts=10", "--access-log=off"}),
            "--log-prompts needs --access-log=on or no-probes");
}

TEST(ConfigTest, WhatBelongsTogether) {
  EXPECT_EQ(Refusal({"--tls-cert=c"}), "--tls-cert and --tls-key belong together");
  EXPECT_EQ(Refusal({"--tls-key=k"}), "--tls-cert and --tls-key belong together");
  EXPECT_EQ(Refusal({"--protect-probes=on"}), "--protect-probes=on needs --api-key-file");
  EXPECT_THAT(Refusal({"--max-body-bytes=1023"}), HasSubstr("allowed: 1024 to 1073741824 bytes"));
  EXPECT_THAT(Refusal({"--max-connections=0"}), HasSubstr("allowed: 1 to"));
  EXPECT_EQ(Refusal({"--max-body-bytes=2MiB", "--max-total-body-bytes=1MiB"}),
            "--max-total-body-bytes is 1048576; allowed: at least --max-body-bytes, 2097152");
}

TEST(ConfigTest, WhatWasNotGivenDependsOnTheDevice) {
  ServerConfig cpu = Config({});
  ASSERT_TRUE(ApplyDeviceDefaults(DeviceType::kCpu, &cpu).ok());
  EXPECT_EQ(cpu.kv_cache_bytes, int64_t{512} << 20);
  EXPECT_EQ(cpu.max_num_seqs, 16);
  EXPECT_EQ(cpu.max_batched_tokens, 512);
  EXPECT_EQ(cpu.max_chunk_tokens, 256);
  ServerConfig gpu = Config({});
  ASSERT_TRUE(ApplyDeviceDefaults(DeviceType::kCuda, &gpu).ok());
  EXPECT_EQ(gpu.kv_cache_bytes, 0);  // what is left
  EXPECT_EQ(gpu.max_num_seqs, 64);
  EXPECT_EQ(gpu.max_batched_tokens, 8192);
  EXPECT_EQ(gpu.max_chunk_tokens, 2048);
  ServerConfig given = Config(
      {"--max-num-seqs=3", "--max-batched-tokens=4", "--max-chunk-tokens=5", "--kv-cache-bytes=6"});
  ASSERT_TRUE(ApplyDeviceDefaults(DeviceType::kCuda, &given).ok());
  EXPECT_EQ(given.max_num_seqs, 3);
  EXPECT_EQ(given.max_batched_tokens, 4);
  EXPECT_EQ(given.max_chunk_tokens, 5);
  EXPECT_EQ(given.kv_cache_bytes, 6);
  ServerConfig too_many = Config({"--max-num-seqs=600"});
  EXPECT_EQ(ApplyDeviceDefaults(DeviceType::kCpu, &too_many).message(),
            "--max-batched-tokens is 512; allowed: at least --max-num-seqs, 600");
}

TEST(ConfigTest, ALongPromptLeavesHalfOfAStepToOthers) {
  for (const auto& [batched, chunk] : {std::pair<int64_t, int64_t>{1024, 256}, {64, 32}, {1, 1}}) {
    ServerConfig config = Config({});
    config.max_num_seqs = 1;
    config.max_batched_tokens = batched;
    ASSERT_TRUE(ApplyDeviceDefaults(DeviceType::kCpu, &config).ok());
    EXPECT_EQ(config.max_chunk_tokens, chunk);
  }
}

TEST(ConfigTest, Devices) {
  const auto device = [](const std::string& value) { return Config({"--device=" + value}).device; };
  EXPECT_EQ(device("auto").kind, DeviceChoice::Kind::kAuto);
  EXPECT_EQ(device("cpu").kind, DeviceChoice::Kind::kCpu);
  EXPECT_EQ(device("cuda").kind, DeviceChoice::Kind::kCuda);
  EXPECT_EQ(device("cuda").index, 0);
  EXPECT_EQ(device("cuda:7").kind, DeviceChoice::Kind::kCuda);
  EXPECT_EQ(device("cuda:7").index, 7);
  for (const char* value : {"gpu", "cuda:", "cuda:-1", "cuda:x", "cuda7", ""}) {
    EXPECT_EQ(
        Refusal({std::string("--device=") + value}),
        std::string("--device is '") + value + "'; allowed: auto, cpu, cuda, cuda:N with N from 0");
  }
  EXPECT_EQ(Refusal({"--gpu-memory-utilization=0"}),
            "--gpu-memory-utilization is '0'; allowed: above 0, at most 1");
  EXPECT_EQ(Refusal({"--gpu-memory-utilization=1.5"}),
            "--gpu-memory-utilization is '1.5'; allowed: above 0, at most 1");
  EXPECT_EQ(Refusal({"--cuda-graphs=maybe"}), "--cuda-graphs is 'maybe'; allowed: on, off");
  EXPECT_EQ(Refusal({"--prefix-caching=1"}), "--prefix-caching is '1'; allowed: on, off");
}

TEST(ConfigTest, EveryFlag) {
  const ServerConfig config =
      Config({"--host=0.0.0.0",           "--http-port",           "1",
              "--grpc-port=65535",        "--kv-cache-bytes=2GiB", "--kv-cache-dtype=bf16",
              "--attention=full",         "--threads=3",           "--max-num-seqs=4",
              "--max-batched-tokens=100", "--max-chunk-tokens=50", "--max-model-tokens=1000",
              "--max-queued-requests=7",  "--served-model-name=n", "--chat-template=t.jinja",
              "--drain-timeout=1.5s",     "--device=cpu",          "--gpu-memory-utilization=0.5",
              "--cuda-graphs=off",        "--prefix-caching=off",  "--liveness-timeout=5"});
  EXPECT_EQ(config.host, "0.0.0.0");
  EXPECT_EQ(config.http_port, 1);
  EXPECT_EQ(config.grpc_port, 65535);
  EXPECT_EQ(config.kv_cache_bytes, int64_t{2} << 30);
  EXPECT_EQ(config.kv_cache_dtype, DType::kBF16);
  EXPECT_EQ(config.attention, "full");
  EXPECT_EQ(config.num_threads, 3);
  EXPECT_EQ(config.max_num_seqs, 4);
  EXPECT_EQ(config.max_batched_tokens, 100);
  EXPECT_EQ(config.max_chunk_tokens, 50);
  EXPECT_EQ(config.max_model_tokens, 1000);
  EXPECT_EQ(config.max_queued_requests, 7);
  EXPECT_EQ(config.served_model_name, "n");
  EXPECT_EQ(config.chat_template, "t.jinja");
  EXPECT_EQ(config.drain_timeout, absl::Seconds(1.5));
  EXPECT_EQ(config.liveness_timeout, absl::Seconds(5));
  EXPECT_EQ(config.device.kind, DeviceChoice::Kind::kCpu);
  EXPECT_EQ(config.gpu_memory_utilization, 0.5);
  EXPECT_FALSE(config.cuda_graphs);
  EXPECT_FALSE(config.prefix_caching);
}

TEST(ConfigTest, Bytes) {
  const auto bytes = [](const std::string& value) {
    return Config({"--kv-cache-bytes=" + value}).kv_cache_bytes;
  };
  EXPECT_EQ(bytes("1"), 1);
  EXPECT_EQ(bytes("1048576"), 1 << 20);
  EXPECT_EQ(bytes("3KiB"), 3 << 10);
  EXPECT_EQ(bytes("1.5MiB"), 3 << 19);
  EXPECT_EQ(bytes("1TiB"), int64_t{1} << 40);
  for (const char* value :
       {"0", "-1", "", "MiB", "1MB", "1 MiB x", "inf", "nan", "9e99", "2000TiB"}) {
    EXPECT_THAT(Refusal({std::string("--kv-cache-bytes=") + value}), HasSubstr("--kv-cache-bytes"));
  }
}

TEST(ConfigTest, ValuesOutOfRangeAreNamed) {
  EXPECT_EQ(Refusal({"--http-port=65536"}), "--http-port is '65536'; allowed: 0 to 65535");
  EXPECT_EQ(Refusal({"--grpc-port=-1"}), "--grpc-port is '-1'; allowed: 0 to 65535");
  EXPECT_EQ(Refusal({"--http-port=80x"}), "--http-port is '80x'; allowed: 0 to 65535");
  EXPECT_EQ(Refusal({"--threads=0"}), "--threads is '0'; allowed: 1 to 1024");
  EXPECT_EQ(Refusal({"--attention=magic"}), "--attention is 'magic'; allowed: auto, full");
  EXPECT_EQ(Refusal({"--kv-cache-dtype=f8"}),
            "--kv-cache-dtype is 'f8'; allowed: auto, f32, bf16, f16");
  EXPECT_EQ(Refusal({"--drain-timeout=-1"}),
            "--drain-timeout is '-1'; allowed: 0 to 86400 seconds");
  EXPECT_EQ(Refusal({"--liveness-timeout=0.9"}),
            "--liveness-timeout is '0.9'; allowed: 1 to 86400 seconds");
  EXPECT_EQ(Refusal({"--drain-timeout=nan"}),
            "--drain-timeout is 'nan'; allowed: 0 to 86400 seconds");
  EXPECT_THAT(Refusal({"--host="}), HasSubstr("--host is ''"));
  EXPECT_THAT(Refusal({"--max-num-seqs=9999999999999999999"}), HasSubstr("--max-num-seqs"));
}

TEST(ConfigTest, WhatIsNoFlagIsNamed) {
  EXPECT_EQ(Refusal({"--no-such-flag=1"}),
            "unknown argument '--no-such-flag'; --help lists all flags");
  EXPECT_EQ(Refusal({"model"}), "unknown argument 'model'; --help lists all flags");
  EXPECT_EQ(Refusal({"-model=m"}), "unknown argument '-model'; --help lists all flags");
  EXPECT_EQ(Parse({"--model"}).status().message(), "--model needs a value");
  EXPECT_THAT(std::string(Parse({}).status().message()), HasSubstr("--model=FOLDER is missing"));
}

TEST(ConfigTest, FlagsThatContradictEachOther) {
  EXPECT_EQ(Refusal({"--http-port=9000"}), "--http-port and --grpc-port are both 9000");
  EXPECT_EQ(Config({"--http-port=0", "--grpc-port=0"}).http_port, 0);
  EXPECT_EQ(Refusal({"--max-num-seqs=10", "--max-batched-tokens=9"}),
            "--max-batched-tokens is 9; allowed: at least --max-num-seqs, 10");
  EXPECT_EQ(Config({"--max-num-seqs=10", "--max-batched-tokens=10"}).max_num_seqs, 10);
}

TEST(ConfigTest, TheEnvironmentFillsInAndFlagsWin) {
  EXPECT_EQ(Config({}, {{"NSA_HTTP_PORT", "81"}}).http_port, 81);
  EXPECT_EQ(Config({"--http-port=82"}, {{"NSA_HTTP_PORT", "81"}}).http_port, 82);
  EXPECT_EQ(Parse({}, {{"NSA_MODEL", "e"}})->config.model, "e");
  EXPECT_EQ(Refusal({}, {{"NSA_HTTP_PORT", "x"}}), "NSA_HTTP_PORT is 'x'; allowed: 0 to 65535");
}

TEST(ConfigTest, TheDoctorTakesTheFlagsOfTheServer) {
  const auto doctor = Parse({"doctor", "--model=m", "--http-port=1"});
  ASSERT_TRUE(doctor.ok()) << doctor.status();
  EXPECT_EQ(doctor->action, CommandLine::Action::kDoctor);
  EXPECT_EQ(doctor->config.http_port, 1);
  EXPECT_EQ(Parse({"--model=m"})->action, CommandLine::Action::kServe);
  EXPECT_EQ(Parse({"--model=m", "doctor"})->action, CommandLine::Action::kDoctor);
  EXPECT_EQ(Parse({"--model", "doctor"})->action, CommandLine::Action::kServe);
  EXPECT_EQ(Parse({"doctor"})->config.model, "");  // one of its problems
}

TEST(ConfigTest, HelpAndVersionWinOverEverything) {
  EXPECT_EQ(Parse({"--nonsense", "--help"})->action, CommandLine::Action::kHelp);
  EXPECT_EQ(Parse({"--version"})->action, CommandLine::Action::kVersion);
}

}  // namespace
}  // namespace nsa
