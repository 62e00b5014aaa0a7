"""From a model to a plan: importer, graph, rewrites, tracer, grouping, code generation, memory."""
