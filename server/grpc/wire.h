#pragma once
// Messages as gRPC carries them. The service parses them itself: the library would answer what it
// cannot parse with UNIMPLEMENTED and no word.

#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace nsa {

// INVALID_ARGUMENT: the bytes are no such message, or a text in it is not UTF-8.
template <typename Message>
absl::StatusOr<Message> FromWire(const grpc::ByteBuffer& bytes) {
  Message message;
  grpc::ByteBuffer unread = bytes;  // a reference
  if (grpc::SerializationTraits<Message>::Deserialize(&unread, &message).ok()) return message;
  return absl::InvalidArgumentError(absl::StrCat("the bytes are not a ",
                                                 std::string(Message::descriptor()->full_name()),
                                                 ", or a text in it is not valid UTF-8"));
}

template <typename Message>
grpc::ByteBuffer ToWire(const Message& message) {
  grpc::ByteBuffer bytes;
  bool is_owned = false;
  grpc::SerializationTraits<Message>::Serialize(message, &bytes, &is_owned);
  return bytes;
}

}  // namespace nsa
