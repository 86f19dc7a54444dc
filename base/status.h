#pragma once
// Short forms for code that returns absl::Status or absl::StatusOr.

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define NSA_CONCAT_INNER(a, b) a##b
#define NSA_CONCAT(a, b) NSA_CONCAT_INNER(a, b)

// Returns the status of `expr` from the enclosing function unless it is OK.
#define NSA_RETURN_IF_ERROR(expr) \
  if (absl::Status nsa_status = (expr); !nsa_status.ok()) return nsa_status

// NSA_ASSIGN_OR_RETURN(auto x, F()): declares x from the value of F(), or returns F()'s error.
#define NSA_ASSIGN_OR_RETURN(lhs, expr) \
  NSA_ASSIGN_OR_RETURN_IMPL(NSA_CONCAT(nsa_status_or_, __LINE__), lhs, expr)
#define NSA_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                              \
  if (!tmp.ok()) return tmp.status();             \
  lhs = std::move(tmp).value()
