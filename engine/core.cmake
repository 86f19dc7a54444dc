# The engine loop without a model: scheduling, batches, page bookkeeping, statistics.
nsa_library(nsa_engine_core
  SOURCES
    admission.cc
    batch_builder.cc
    cache/page_pool.cc
    cache/prefix_index.cc
    constrained_output.cc
    engine.cc
    engine_core.cc
    logit_editor.cc
    mask_worker.cc
    request_check.cc
    scheduler.cc
    sequence.cc
    stats.cc
  DEPS nsa_base nsa_constraint absl::flat_hash_map absl::hash absl::status absl::statusor absl::strings
       absl::time Threads::Threads)
