#include "kernels/nsa.h"

#include "kernels/backends.h"
#include "kernels/checks.h"

namespace nsa {
namespace {

// Pages of compressed rows hold the rows whose spans end in one block.
void CheckRows(const NsaShape& shape, const PagedKv& rows, const Stream& stream) {
  CheckShape(shape);
  CheckPagedKv(rows, stream);
  NSA_CHECK_EQ(rows.page_rows(), shape.rows_per_page());
}

void CheckPhi(const CompressArgs& args, const PhiWeights& phi, int64_t d, const Stream& stream) {
  const int64_t num_heads = args.raw.num_kv_heads();
  const int64_t span = args.shape.span_tokens;
  if (!phi.position.empty()) {
    NSA_CHECK_SHAPE(phi.position, {num_heads, span, d});
    CheckDType(phi.position, DType::kF32, "position");
  }
  switch (args.phi) {
    case PhiKind::kMean:
      break;
    case PhiKind::kWeightedPool:
      NSA_CHECK_SHAPE(phi.weight, {num_heads, span});
      CheckDType(phi.weight, DType::kF32, "pooling weight");
      break;
    case PhiKind::kLinear:
      NSA_CHECK_SHAPE(phi.weight, {num_heads, d, span * d});
      CheckActivation(phi.weight, stream, "phi weight");
      break;
    case PhiKind::kMlp:
      NSA_CHECK_SHAPE(phi.fc1, {num_heads, -1, span * d});
      NSA_CHECK_SHAPE(phi.fc2, {num_heads, d, phi.fc1.dim(1)});
      CheckActivation(phi.fc1, stream, "fc1");
      CheckDType(phi.fc2, phi.fc1.dtype(), "fc2");
      NSA_CHECK(phi.fc1.dim(1) <= kMaxPhiHidden)
          << "hidden " << phi.fc1.dim(1) << ", allowed 1.." << kMaxPhiHidden;
      break;
  }
}

void CheckCompress(const CompressArgs& args, const Stream& stream) {
  CheckTokens(args.tokens);
  CheckRows(args.shape, args.rows, stream);
  CheckPagedKv(args.raw, stream);
  NSA_CHECK(args.raw.num_kv_heads() == args.rows.num_kv_heads() &&
            args.raw.d_k() == args.rows.d_k() && args.raw.d_v() == args.rows.d_v() &&
            args.raw.k.dtype() == args.rows.k.dtype())
      << args.raw.k.ToString() << " against " << args.rows.k.ToString();
  NSA_CHECK_GE(args.raw.page_rows() * args.raw.table.dim(1), args.shape.span_tokens);
  NSA_CHECK_LE(args.shape.span_tokens * std::max(args.raw.d_k(), args.raw.d_v()), kMaxSpanElements);
  CheckPhi(args, args.phi_k, args.raw.d_k(), stream);
  CheckPhi(args, args.phi_v, args.raw.d_v(), stream);
  if (args.rope == CmpRope::kAfter) {
    NSA_CHECK_SHAPE(args.inv_freq, {args.raw.d_k() / 2});
  }
}

}  // namespace

void CompressRows(const CompressArgs& args, const Stream& stream) {
  CheckCompress(args, stream);
  NSA_DISPATCH(CompressRows, args, stream);
}

void AppendTokens(const AppendArgs& args, const Stream& stream) {
  CheckStoreProjections(args.store, stream);
  CheckCompress(args.compress, stream);
  const TokenMap &stored = args.store.tokens, &compressed = args.compress.tokens;
  NSA_CHECK(stored.position.raw() == compressed.position.raw() &&
            stored.sequence.raw() == compressed.sequence.raw() &&
            stored.num_tokens() == compressed.num_tokens() &&
            stored.num_decode_tokens == compressed.num_decode_tokens)
      << "two steps";
  NSA_CHECK_GE(RawStream(args), 0) << "raw rows that the step does not store";
  NSA_DISPATCH(AppendTokens, args, stream);
}

int64_t RawStream(const AppendArgs& args) {
  const auto is_same = [](const PagedKv& a, const PagedKv& b) {
    return a.k.raw() == b.k.raw() && a.v.raw() == b.v.raw() && a.table.raw() == b.table.raw() &&
           a.num_kv_heads() == b.num_kv_heads() && a.page_rows() == b.page_rows() &&
           a.d_k() == b.d_k() && a.d_v() == b.d_v() && a.table.dim(1) == b.table.dim(1);
  };
  for (int64_t i = 0; i < args.store.num_streams; ++i) {
    if (is_same(args.store.streams[i].kv, args.compress.raw)) return i;
  }
  return -1;
}

void CompressedAttention(const CompressedAttentionArgs& args, const Stream& stream) {
  CheckAttention({args.tokens, args.q, args.rows, args.out, args.lse}, stream);
  CheckRows(args.shape, args.rows, stream);
  NSA_DISPATCH(CompressedAttention, args, stream);
}

void SelectBlocks(const SelectArgs& args, const Stream& stream) {
  const int64_t num_tokens = args.tokens.num_tokens();
  CheckTokens(args.tokens);
  CheckRows(args.shape, args.rows, stream);
  NSA_CHECK_SHAPE(args.q, {num_tokens, -1, args.rows.d_k()});
  CheckActivation(args.q, stream, "q");
  NSA_CHECK(args.q.dim(1) % args.rows.num_kv_heads() == 0) << args.q.ToString();
  NSA_CHECK_SHAPE(args.lse, {num_tokens, args.q.dim(1)});
  NSA_CHECK_SHAPE(args.blocks, {num_tokens, args.rows.num_kv_heads(), args.shape.num_selected});
  NSA_CHECK_SHAPE(args.scratch, {-1, -1});
  CheckDType(args.scratch, DType::kF32, "scratch");
  NSA_DISPATCH(SelectBlocks, args, stream);
}

void SelectedAttention(const SelectedAttentionArgs& args, const Stream& stream) {
  CheckAttention({args.tokens, args.q, args.kv, args.out, args.lse}, stream);
  CheckShape(args.shape);
  NSA_CHECK_EQ(args.kv.page_rows(), args.shape.block_tokens);
  NSA_CHECK_SHAPE(args.blocks,
                  {args.tokens.num_tokens(), args.kv.num_kv_heads(), args.shape.num_selected});
  NSA_DISPATCH(SelectedAttention, args, stream);
}

void WindowAttention(const WindowAttentionArgs& args, const Stream& stream) {
  CheckAttention({args.tokens, args.q, args.kv, args.out, args.lse}, stream);
  NSA_CHECK_GE(args.window_tokens, 1);
  NSA_DISPATCH(WindowAttention, args, stream);
}

void DenseAttention(const DenseAttentionArgs& args, const Stream& stream) {
  CheckAttention({args.tokens, args.q, args.kv, args.out, args.lse}, stream);
  NSA_DISPATCH(DenseAttention, args, stream);
}

void CombineBranches(const CombineArgs& args, const Stream& stream) {
  NSA_CHECK_SHAPE(args.out, {-1, -1, -1});
  const int64_t num_tokens = args.out.dim(0), num_heads = args.out.dim(1), d_v = args.out.dim(2);
  NSA_CHECK_SHAPE(args.gate_logits, {num_tokens, num_heads, 3});
  NSA_CHECK_SHAPE(args.cmp, {num_tokens, num_heads, d_v});
  NSA_CHECK_SHAPE(args.sel, {num_tokens, num_heads, d_v});
  NSA_CHECK_SHAPE(args.win, {num_tokens, num_heads, d_v});
  CheckDType(args.gate_logits, DType::kF32, "gate_logits");
  for (const TensorView* branch : {&args.cmp, &args.sel, &args.win}) {
    CheckDType(*branch, DType::kF32, "branch");
  }
  CheckActivation(args.out, stream, "out");
  NSA_DISPATCH(CombineBranches, args, stream);
}

void SparseAttention(const SparseAttentionArgs& args, const Stream& stream) {
  const int64_t num_tokens = args.tokens.num_tokens();
  CheckTokens(args.tokens);
  CheckRows(args.shape, args.rows, stream);
  NSA_CHECK_SHAPE(args.q, {num_tokens, -1, args.rows.d_k()});
  const int64_t num_heads = args.q.dim(1), num_kv_heads = args.rows.num_kv_heads();
  NSA_CHECK_EQ(num_heads % num_kv_heads, 0);
  for (const PagedKv* kv : {&args.sel, &args.win}) {
    CheckPagedKv(*kv, stream);
    NSA_CHECK(kv->num_kv_heads() == num_kv_heads && kv->d_k() == args.rows.d_k() &&
              kv->d_v() == args.rows.d_v())
        << kv->k.ToString() << " against " << args.rows.k.ToString();
  }
  NSA_CHECK_EQ(args.sel.page_rows(), args.shape.block_tokens);
  NSA_CHECK_GE(args.shape.window_tokens, 1);
  NSA_CHECK_SHAPE(args.gate_logits, {num_tokens, num_heads, 3});
  NSA_CHECK_SHAPE(args.out, {num_tokens, num_heads, args.rows.d_v()});
  CheckActivation(args.q, stream, "q");
  CheckDType(args.out, args.q.dtype(), "out");
  NSA_CHECK_SHAPE(args.blocks, {num_tokens, num_kv_heads, args.shape.num_selected});
  NSA_DISPATCH(SparseAttention, args, stream);
}

int64_t CompressRowsScratchBytes(const CompressExtent& extent, const Stream& stream) {
  return NSA_DISPATCH(CompressRowsScratchBytes, extent, stream);
}

SparseAttentionExtent ExtentOf(const SparseAttentionArgs& args) {
  return {.shape = args.shape,
          .num_tokens = args.tokens.num_tokens(),
          .num_seqs = args.sel.table.dim(0),
          .max_pages = args.sel.table.dim(1),
          .num_heads = args.q.dim(1),
          .num_kv_heads = args.sel.num_kv_heads(),
          .d_k = args.sel.d_k(),
          .d_v = args.sel.d_v(),
          .activation = args.q.dtype(),
          .cache_dtype = args.sel.k.dtype()};
}

int64_t SparseAttentionScratchBytes(const SparseAttentionExtent& extent, const Stream& stream) {
  return NSA_DISPATCH(SparseAttentionScratchBytes, extent, stream);
}

}  // namespace nsa
