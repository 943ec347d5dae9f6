"""Azure Web PubSub for code that does not speak asyncio."""
