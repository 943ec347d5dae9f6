// Runs the official JavaScript packages for a test in another process: commands come as lines of JSON on standard
// input, answers and events go out as lines of JSON on standard output. Ends when standard input does.
//
// Command: {id, op, ...}. Answer: {id, result} or {id, error: {name, message, ...}}. Event: {of, event, payload}.
// Bytes are {$bytes: base64} in both directions; {$signal: name} in an argument is an AbortSignal that the command
// `abort` fires; {$odata: [strings, values]} is what the odata tag of the service package makes of them.

import { createInterface } from "node:readline";

const objects = new Map();
const signals = new Map();
let odata;

function send(message) {
  process.stdout.write(JSON.stringify(message) + "\n");
}

function encode(value) {
  if (value instanceof ArrayBuffer) return { $bytes: Buffer.from(value).toString("base64") };
  if (ArrayBuffer.isView(value)) {
    return { $bytes: Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64") };
  }
  if (Array.isArray(value)) return value.map(encode);
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, encode(member)]));
  }
  return value;
}

function decode(value) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(decode);
  if ("$bytes" in value) return new Uint8Array(Buffer.from(value.$bytes, "base64")).buffer;
  if ("$odata" in value) return odata(value.$odata[0], ...value.$odata[1].map(decode));
  if ("$signal" in value) {
    if (!signals.has(value.$signal)) signals.set(value.$signal, new AbortController());
    return signals.get(value.$signal).signal;
  }
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, decode(member)]));
}

function describe(error) {
  const { name, message, ackId, errorDetail, invocationId, statusCode, code } = error ?? {};
  return { name, message: message ?? String(error), ackId, errorDetail, invocationId, statusCode, code };
}

async function readStream(of, stream) {
  const { groupName, streamId } = stream;
  const tell = (event, more) => send({ of, event, payload: { groupName, streamId, ...more } });
  tell("stream-opened");
  try {
    for await (const { dataType, data, fromUserId, stream: info } of stream) {
      tell("stream-data", { dataType, data: encode(data), fromUserId, stream: info });
    }
    tell("stream-ended");
  } catch (error) {
    tell("stream-failed", { error });
  }
}

// Report what happens to a socket of the package ws.
function watch(of, socket) {
  socket.on("message", (data, binary) => {
    send({ of, event: "message", payload: binary ? encode(data) : data.toString() });
  });
  socket.on("pong", (data) => send({ of, event: "pong", payload: encode(data) }));
  socket.on("close", (code, reason) => send({ of, event: "close", payload: { code, reason: reason.toString() } }));
  socket.on("error", (error) => send({ of, event: "error", payload: describe(error) }));
}

const makers = {
  async client({ name, url, protocol, options, streams }) {
    const sdk = await import("@azure/web-pubsub-client");
    const protocols = {
      json: sdk.WebPubSubJsonProtocol,
      "json.reliable": sdk.WebPubSubJsonReliableProtocol,
    };
    const client = new sdk.WebPubSubClient(url, { ...options, ...(protocol ? { protocol: protocols[protocol]() } : {}) });
    for (const event of ["connected", "disconnected", "stopped", "group-message", "server-message"]) {
      client.on(event, (payload) => send({ of: name, event, payload: encode(payload.message ?? payload) }));
    }
    client.on("rejoin-group-failed", ({ group, error }) => {
      send({ of: name, event: "rejoin-group-failed", payload: { group, error: describe(error) } });
    });
    if (streams) client.onGroupStream((stream) => readStream(name, stream), streams);
    return client;
  },

  // A WebSocket client of the package ws: bare frames.
  async socket({ name, url, protocols, options }) {
    const { default: WebSocket } = await import("ws");
    const socket = new WebSocket(url, protocols, options);
    watch(name, socket);
    await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
    return socket;
  },

  // A WebSocket server of the package ws; its connections are the objects `name-0`, `name-1`, ...
  async sockets({ name, protocols, options }) {
    const { WebSocketServer } = await import("ws");
    const handleProtocols = (offered) => protocols.find((protocol) => offered.has(protocol)) ?? false;
    const server = new WebSocketServer({ host: "127.0.0.1", port: 0, handleProtocols, ...options });
    let count = 0;
    server.on("connection", (socket, request) => {
      const made = `${name}-${count++}`;
      objects.set(made, socket);
      watch(made, socket);
      send({ of: name, event: "connection", payload: { name: made, path: request.url, protocol: socket.protocol } });
    });
    await new Promise((resolve, reject) => server.once("listening", resolve).once("error", reject));
    server.reported = { port: server.address().port };
    return server;
  },

  async service({ connectionString, endpoint, token, hub, options }) {
    const sdk = await import("@azure/web-pubsub");
    odata = sdk.odata;
    const settings = { allowInsecureConnection: true, retryOptions: { maxRetries: 0 }, ...options };
    if (connectionString) return new sdk.WebPubSubServiceClient(connectionString, hub, settings);
    const credential = { getToken: async () => ({ token, expiresOnTimestamp: Date.now() + 3_600_000 }) };
    return new sdk.WebPubSubServiceClient(endpoint, credential, hub, settings);
  },

  // An express application on a free loopback port that answers by rules and reports every call.
  // Rule: {echo} | {reply, type} | {states} | {fail: [status, text]}, each with an optional `set` of the state.
  async upstream({ name, hub, path, allowedEndpoints, connect, events, quiet }) {
    const { WebPubSubEventHandler } = await import("@azure/web-pubsub-express");
    const { default: express } = await import("express");
    const tell = (event, payload) => send({ of: name, event, payload: encode(payload) });
    const setState = (rule, response) => {
      for (const [key, value] of Object.entries(rule.set ?? {})) response.setState(key, value);
    };
    const answer = (rule, request, response) => {
      setState(rule, response);
      if (rule.fail) response.fail(...rule.fail);
      else if (rule.states) response.success(JSON.stringify(request.context.states), "json");
      else if (rule.echo) {
        const { data, dataType } = request;
        response.success(dataType === "json" ? JSON.stringify(data) : data, dataType);
      } else if (rule.reply === undefined) response.success();
      else {
        const reply = decode(rule.reply); // the package says ArrayBuffer and hands it to Node, which takes a Buffer
        response.success(reply instanceof ArrayBuffer ? Buffer.from(reply) : reply, rule.type);
      }
    };
    const options = { path, allowedEndpoints };
    if (connect) {
      options.handleConnect = (request, response) => {
        tell("connect", request);
        const rule = connect[request.queries?.rule?.[0]] ?? connect.default ?? {};
        setState(rule, response);
        if (rule.fail) response.fail(...rule.fail);
        else response.success(rule.success);
      };
    }
    if (events) {
      options.handleUserEvent = (request, response) => {
        tell("user-event", request);
        answer(events[request.context.eventName] ?? events.default ?? {}, request, response);
      };
    }
    if (!quiet) {
      const calls = { onConnected: "connected", onDisconnected: "disconnected", onGroupJoined: "joined", onGroupLeft: "left" };
      for (const [option, event] of Object.entries(calls)) options[option] = (request) => tell(event, request);
    }
    const handler = new WebPubSubEventHandler(hub, options);
    const app = express();
    app.use((request, response, next) => {
      tell("http", { method: request.method, url: request.originalUrl, headers: request.headers });
      response.on("finish", () => tell("answered", { method: request.method, status: response.statusCode }));
      next();
    });
    app.use(handler.getMiddleware());
    const listener = app.listen(0, "127.0.0.1");
    await new Promise((resolve, reject) => listener.once("listening", resolve).once("error", reject));
    return { port: listener.address().port, path: handler.path };
  },
};

const operations = {
  async make({ kind, name, ...options }) {
    const made = await makers[kind]({ name, ...options });
    objects.set(name, made);
    return kind === "upstream" ? made : made.reported ?? null;
  },

  async get({ of, property }) {
    return encode(objects.get(of)[property]);
  },

  // Call a method; with `keep` its result stays here under that name, with `pages` it is read to the end by pages.
  async call({ of, method, args, keep, pages }) {
    const target = objects.get(of);
    const result = await target[method](...decode(args));
    if (keep) {
      objects.set(keep, result);
      if (result.onError) result.onError((error) => send({ of: keep, event: "error", payload: error }));
      return { streamId: result.streamId };
    }
    if (pages) {
      const all = [];
      for await (const page of result.byPage(pages)) all.push([...page]);
      return all;
    }
    return encode(result);
  },

  // Call a method for `count` numbers, each when the one before is done; with `ackIds` under an ack id of its own.
  async repeat({ of, method, before, first, count, type, ackIds }) {
    const target = objects.get(of);
    for (let number = first; number < first + count; number += 1) {
      await target[method](...before, number, type, ...(ackIds ? [{ ackId: 1_000_000 + number }] : []));
    }
    return null;
  },

  async abort({ signal }) {
    decode({ $signal: signal });
    signals.get(signal).abort();
    return null;
  },
};

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const { id, op, ...command } = JSON.parse(line);
    try {
      send({ id, result: (await operations[op](command)) ?? null });
    } catch (error) {
      send({ id, error: describe(error) });
    }
  })
  .on("close", () => process.exit(0));
