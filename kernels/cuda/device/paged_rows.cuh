#pragma once
// PagedKv as kernels take it, and where a row of a sequence lies.

#include <cstdint>

#include "kernels/paged_kv.h"

namespace nsa::cuda {

template <typename T>
struct DevicePagedKv {
  T* k;                  // [num_pages, num_kv_heads, page_rows, d_k]
  T* v;                  // [num_pages, num_kv_heads, page_rows, d_v]
  const int32_t* table;  // [num_seqs, table_width]
  int32_t table_width;
  int32_t num_kv_heads;
  int32_t page_rows;
  int32_t d_k, d_v;

  // Index of the row among the cache's [num_pages * num_kv_heads * page_rows] rows.
  __device__ __forceinline__ int64_t RowIndex(int64_t sequence, int32_t kv_head,
                                              int32_t row) const {
    const int32_t logical = row / page_rows;
    const int64_t page = table[sequence * table_width + logical % table_width];
    return (page * num_kv_heads + kv_head) * page_rows + (row - logical * page_rows);
  }
};

template <typename T>
DevicePagedKv<T> MakeDevicePagedKv(const PagedKv& kv) {
  return {.k = static_cast<T*>(kv.k.raw()),
          .v = static_cast<T*>(kv.v.raw()),
          .table = static_cast<const int32_t*>(kv.table.raw()),
          .table_width = static_cast<int32_t>(kv.table.dim(1)),
          .num_kv_heads = static_cast<int32_t>(kv.num_kv_heads()),
          .page_rows = static_cast<int32_t>(kv.page_rows()),
          .d_k = static_cast<int32_t>(kv.d_k()),
          .d_v = static_cast<int32_t>(kv.d_v())};
}

}  // namespace nsa::cuda
