#include "engine/text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

namespace nsa {
namespace {

using testing::HasSubstr;

const std::vector<ChatMessage> kQuestion = {{"user", "Hi there"}};
const std::vector<ChatMessage> kDialogue = {
    {"system", "Be brief."}, {"user", " Hi there "}, {"assistant", "Hello!"}, {"user", "And now?"}};

std::unique_ptr<ChatTemplate> Compile(const std::string& source) {
  auto compiled = ChatTemplate::Compile(source, "<s>", "</s>");
  EXPECT_TRUE(compiled.ok()) << compiled.status();
  return compiled.ok() ? *std::move(compiled) : nullptr;
}

std::string Render(const std::string& source, const std::vector<ChatMessage>& messages) {
  const absl::StatusOr<std::string> prompt = Compile(source)->Render(messages);
  EXPECT_TRUE(prompt.ok()) << prompt.status();
  return prompt.value_or("");
}

TEST(ChatTemplateTest, PlainConcatenation) {
  const char source[] =
      "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
      "assistant:";
  EXPECT_EQ(Render(source, kDialogue),
            "system: Be brief.\nuser:  Hi there \nassistant: Hello!\nuser: And now?\nassistant:");
}

// The shape of Llama 2: a system message is folded into the first turn, roles must alternate.
TEST(ChatTemplateTest, LlamaTwoShape) {
  const char source[] =
      "{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}"
      "{% set system = messages[0]['content'] %}{% else %}{% set turns = messages %}"
      "{% set system = false %}{% endif %}"
      "{% for message in turns %}"
      "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
      "{{ raise_exception('Roles must alternate user/assistant/user/...') }}{% endif %}"
      "{% if loop.index0 == 0 and system != false %}"
      "{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}"
      "{% else %}{% set content = message['content'] %}{% endif %}"
      "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
      "{% elif message['role'] == 'assistant' %}"
      "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}";
  EXPECT_EQ(Render(source, kQuestion), "<s>[INST] Hi there [/INST]");
  EXPECT_EQ(Render(source, kDialogue),
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi there [/INST] Hello! </s>"
            "<s>[INST] And now? [/INST]");
  const absl::Status twice = Compile(source)->Render({{"user", "a"}, {"user", "b"}}).status();
  EXPECT_EQ(twice.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(twice.message(), "chat template: Roles must alternate user/assistant/user/...");
}

// The shape of ChatML as Qwen writes it: one construct per line, whitespace control at every tag.
TEST(ChatTemplateTest, ChatMlShape) {
  const char source[] =
      "{%- if tools %}\n"
      "    {{- '<|im_start|>system\\n' }}\n"
      "    {{- tools | tojson }}\n"
      "{%- else %}\n"
      "    {%- if messages[0]['role'] != 'system' %}\n"
      "        {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}\n"
      "    {%- endif %}\n"
      "{%- endif %}\n"
      "{%- for message in messages %}\n"
      "    {%- if (message.role == \"user\") or (message.role == \"system\")"
      " or (message.role == \"assistant\" and not message.tool_calls) %}\n"
      "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' "
      "}}\n"
      "    {%- endif %}\n"
      "{%- endfor %}\n"
      "{%- if add_generation_prompt %}\n"
      "    {{- '<|im_start|>assistant\\n' }}\n"
      "{%- endif %}\n";
  EXPECT_EQ(Render(source, kQuestion),
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(Render(source, kDialogue),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi there <|im_end|>\n"
            "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>\n"
            "<|im_start|>assistant\n");
}

// The shape of Zephyr: relies on trim_blocks for the line breaks behind its tags.
TEST(ChatTemplateTest, ZephyrShape) {
  const char source[] =
      "{% for message in messages %}\n"
      "{% if message['role'] == 'user' %}\n"
      "{{ '<|user|>\\n' + message['content'] + eos_token }}\n"
      "{% elif message['role'] == 'system' %}\n"
      "{{ '<|system|>\\n' + message['content'] + eos_token }}\n"
      "{% elif message['role'] == 'assistant' %}\n"
      "{{ '<|assistant|>\\n'  + message['content'] + eos_token }}\n"
      "{% endif %}\n"
      "{% if loop.last and add_generation_prompt %}\n"
      "{{ '<|assistant|>' }}\n"
      "{% endif %}\n"
      "{% endfor %}";
  EXPECT_EQ(Render(source, kQuestion), "<|user|>\nHi there</s>\n<|assistant|>\n");
  EXPECT_EQ(Render(source, {{"system", "Be brief."}, {"user", "Hi"}}),
            "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\n");
}

// The shape of Mistral: BOS once, instructions in brackets.
TEST(ChatTemplateTest, MistralShape) {
  const char source[] =
      "{{ bos_token }}{% for message in messages %}"
      "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
      "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
      "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
      "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token + ' ' }}"
      "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}"
      "{% endif %}{% endfor %}";
  EXPECT_EQ(Render(source, {{"user", "Hi"}, {"assistant", "Hello"}, {"user", "Bye"}}),
            "<s>[INST] Hi [/INST]Hello</s> [INST] Bye [/INST]");
  EXPECT_THAT(std::string(Compile(source)->Render({{"system", "x"}}).status().message()),
              HasSubstr("must alternate"));
}

// The shape of Llama 3: headers, `| trim`, a namespace for state that outlives the loop.
TEST(ChatTemplateTest, LlamaThreeShape) {
  const char source[] =
      "{% set ns = namespace(seen=false) %}{% set loop_messages = messages %}"
      "{% for message in loop_messages %}"
      "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
      " + message['content'] | trim + '<|eot_id|>' %}"
      "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
      "{% if message.role == 'system' %}{% set ns.seen = true %}{% endif %}"
      "{{ content }}{% endfor %}{{ '[system]' if ns.seen else '[no system]' }}"
      "{% if add_generation_prompt is defined and add_generation_prompt %}"
      "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}";
  EXPECT_EQ(Render(source, kQuestion),
            "<s><|start_header_id|>user<|end_header_id|>\n\nHi there<|eot_id|>[no system]"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_THAT(Render(source, kDialogue), HasSubstr("Hi there<|eot_id|>"));
  EXPECT_THAT(Render(source, kDialogue), HasSubstr("[system]"));
}

TEST(ChatTemplateTest, ErrorsOfCompilationNameTheLine) {
  const absl::Status status = ChatTemplate::Compile("a\nb\n{% macro x() %}", "", "").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "chat template, line 3: statement 'macro' is not supported");
}

TEST(ChatTemplateTest, NoMessagesIsTheTemplatesBusiness) {
  EXPECT_EQ(Render("{{ messages | length }}", {}), "0");
}

TEST(ChatTemplateTest, ThreadsShareOneTemplate) {
  const auto compiled = Compile(
      "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
      "{{ m.content }}{% endfor %}{{ ns.n }}");
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 100; ++round) {
        EXPECT_EQ(compiled->Render(kDialogue).value_or(""), "Be brief. Hi there Hello!And now?4");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace nsa
