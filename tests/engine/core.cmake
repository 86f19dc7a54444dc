# The engine loop over a fake model.
nsa_test(engine_test
  SOURCES
    admission_test.cc
    batch_builder_test.cc
    cache/page_pool_test.cc
    cache/prefix_index_test.cc
    constrained_output_test.cc
    engine_core_edits_test.cc
    engine_core_test.cc
    engine_core_trace_test.cc
    engine_limits_test.cc
    engine_test.cc
    logit_editor_test.cc
    mask_worker_test.cc
    request_check_test.cc
    scheduler_edge_test.cc
    scheduler_priority_test.cc
    scheduler_test.cc
    sequence_test.cc
    simulation.cc
    simulation_checks.cc
    simulation_clients.cc
    simulation_test.cc
    stats_test.cc
    ../support/fake_executor.cc
  DEPS nsa_engine_core)
