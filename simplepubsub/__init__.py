"""Real-time pub/sub for Python code that does not speak asyncio."""
