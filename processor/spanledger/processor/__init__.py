"""What OpenTelemetry loads: start-up, span processor, sampler, metrics."""
