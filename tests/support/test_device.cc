#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

TensorView WithData(const TensorView& view, void* data) {
  switch (view.rank()) {
    case 1:
      return {data, view.dtype(), {view.dim(0)}};
    case 2:
      return {data, view.dtype(), {view.dim(0), view.dim(1)}};
    case 3:
      return {data, view.dtype(), {view.dim(0), view.dim(1), view.dim(2)}};
    default:
      return {data, view.dtype(), {view.dim(0), view.dim(1), view.dim(2), view.dim(3)}};
  }
}

}  // namespace

TensorView OnDevice::operator()(const TensorView& host) {
  return host.empty() ? host : WithData(host, Place(host.raw(), host.num_bytes()));
}

TensorView OnDevice::Scratch(int64_t num_bytes) {
  return {PlaceScratch(num_bytes), DType::kU8, {num_bytes}};
}

PagedKv OnDevice::operator()(const PagedKv& host) {
  return {(*this)(host.k), (*this)(host.v), (*this)(host.table)};
}

TokenMap OnDevice::operator()(const TokenMap& host) {
  return {.sequence = (*this)(host.sequence),
          .position = (*this)(host.position),
          .num_decode_tokens = host.num_decode_tokens,
          .tiles = (*this)(host.tiles)};
}

}  // namespace nsa::testing
