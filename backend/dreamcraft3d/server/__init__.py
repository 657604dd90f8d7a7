"""The service: durable jobs behind a local socket. Nothing here imports torch, except the worker's own process."""
