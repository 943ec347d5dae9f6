"""The engine: threads, timers, queues and recovery. It knows no wire format and opens no socket."""
