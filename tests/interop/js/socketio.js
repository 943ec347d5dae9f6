// Socket.IO servers for the conformance tests, driven by JSON lines on standard input (tests/interop/socketio/servers.py).
//
// in:  {id, op, server?, ...}   out: {id, result} | {id, error} for each command, {server, kind, ...} for what happens
// start {options} -> {server, port}
//   opts           options of Server            path     where it is mounted (default /socket.io)
//   parser         "msgpack"                    delay    ms that a middleware of every namespace waits
//   tls            {cert, key, ca}              token    required as access_token; GET /negotiate tells endpoint and path
//   refuse         what allowRequest says (403) requests true: log each HTTP request
// get {key} -> what was `put` there   count {key} -> how many   emit {namespace, room, args, volatile}
// close -> io.close()   clients -> how many
// polled -> whether every session can be written to: a poll waits for that, or it is a WebSocket
// miss {sid} -> end the connection of a socket as after a ping timeout, unless it has ended
// Bytes are {"$bytes": base64} here.

import http from "node:http";
import https from "node:https";
import fs from "node:fs";
import readline from "node:readline";
import { Server } from "socket.io";
import msgpack from "socket.io-msgpack-parser";

const servers = [];

function tell(message) {
  process.stdout.write(JSON.stringify(message, encode) + "\n");
}

function encode(key, value) {
  if (value && value.type === "Buffer" && Array.isArray(value.data)) {
    return { $bytes: Buffer.from(value.data).toString("base64") };
  }
  return value;
}

function decode(key, value) {
  return value && typeof value.$bytes === "string" ? Buffer.from(value.$bytes, "base64") : value;
}

class Peer {
  constructor(number, options) {
    this.number = number;
    this.options = options;
    this.store = {};
    this.negotiations = 0;
    const tls = options.tls;
    const listener = (request, response) => this.plain(request, response);
    this.http = tls
      ? https.createServer(
          {
            cert: fs.readFileSync(tls.cert),
            key: fs.readFileSync(tls.key),
            ca: tls.ca && fs.readFileSync(tls.ca),
            requestCert: Boolean(tls.ca),
            rejectUnauthorized: Boolean(tls.ca),
          },
          listener,
        )
      : http.createServer(listener);
    const settings = { path: options.path || "/socket.io", ...options.opts };
    if (options.parser === "msgpack") {
      settings.parser = msgpack;
    }
    if (options.refuse || options.token) {
      settings.allowRequest = (request, done) => this.allow(request, done);
    }
    this.io = new Server(this.http, settings);
    if (options.requests) {
      this.io.engine.use((request, response, next) => {
        this.log("request", { method: request.method, url: request.url, headers: request.headers });
        next();
      });
    }
    if (options.cookie) {
      this.io.engine.on("initial_headers", (headers) => {
        headers["set-cookie"] = options.cookie;
      });
    }
    for (const name of ["/", "/chat", "/room"]) {
      const namespace = this.io.of(name);
      if (options.delay) {
        namespace.use((socket, next) => setTimeout(next, options.delay));
      }
      if (options.guard) {
        namespace.use((socket, next) => {
          this.log("guard", {});
          next();
        });
      }
      namespace.on("connection", (socket) => this.connection(socket));
    }
    this.io.of("/deny").use((socket, next) => {
      const error = new Error("not allowed");
      error.data = { code: 42 };
      next(error);
    });
  }

  start() {
    return new Promise((resolve) => this.http.listen(0, "127.0.0.1", () => resolve(this.http.address().port)));
  }

  log(kind, fields) {
    tell({ server: this.number, kind, ...fields });
  }

  plain(request, response) {
    if (request.url.startsWith("/negotiate")) {
      this.negotiations += 1;
      const endpoint = `http://${request.headers.host}`;
      response.setHeader("Content-Type", "application/json");
      response.end(JSON.stringify({ endpoint, path: this.options.path, token: this.options.token }));
      this.log("negotiate", {});
    } else {
      response.statusCode = 404;
      response.end("nothing here");
    }
  }

  allow(request, done) {
    const query = new URL(request.url, "http://x").searchParams;
    const ok = !this.options.refuse && query.get("access_token") === this.options.token;
    done(this.options.refuse || (ok ? null : "no access token"), ok);
  }

  connection(socket) {
    const { handshake } = socket;
    this.log("connection", {
      sid: socket.id,
      namespace: socket.nsp.name,
      recovered: socket.recovered,
      auth: handshake.auth,
      query: handshake.query,
      transport: socket.conn.transport.name,
      engine: socket.conn.id,
    });
    socket.on("disconnect", (reason) => {
      this.log("disconnect", { sid: socket.id, namespace: socket.nsp.name, reason });
    });
    if (this.options.early) {
      socket.emit("early", "x");
    }
    socket.onAny((name, ...args) => this.event(socket, name, args));
  }

  put(key, values) {
    (this.store[key] = this.store[key] || []).push(...values);
  }

  event(socket, name, args) {
    const ack = typeof args[args.length - 1] === "function" ? args.pop() : () => {};
    switch (name) {
      case "echo":
        return ack(...args);
      case "put":
        this.put(args[0], args.slice(1));
        return ack();
      case "measure":
        return this.put(args[0], [[args[1], args[2].length]]);
      case "burst":
        for (let i = 0; i < args[0]; i++) {
          socket.emit("n", i);
        }
        return ack();
      case "burstbin":
        for (let i = 0; i < args[0]; i++) {
          const one = Buffer.alloc(8, i % 256);
          socket.emit("b", i, one, { x: [Buffer.from(String(i)), Buffer.alloc(0)] });
        }
        return ack();
      case "hello":
        return socket.emit("world", ...args);
      case "say":
        return socket.emit(...args);
      case "whisper":
        return socket.volatile.emit(...args);
      case "want":
        return socket.emit(...args, (...values) => this.log("answer", { to: args[0], values }));
      case "silent":
        return this.put("silent", args);
      case "third":
        this.put("third", args);
        return this.store.third.filter((value) => value === args[0]).length === 3 ? ack("done") : undefined;
      case "info":
        return ack({
          sid: socket.id,
          auth: socket.handshake.auth,
          query: socket.handshake.query,
          transport: socket.conn.transport.name,
        });
      case "join":
        socket.join(args[0]);
        return ack();
      case "kick":
        return socket.disconnect();
      case "kicktrue":
        return socket.disconnect(true);
      case "eioclose":
        return socket.conn.close();
      case "drop":
        return (socket.conn.transport.socket || socket.request.socket)._socket?.destroy();
      case "later":
        return setTimeout(() => {
          for (let i = 0; i < args[1]; i++) {
            this.io.of(socket.nsp.name).emit("late", i);
          }
        }, args[0]);
      default:
        return this.log("event", { sid: socket.id, namespace: socket.nsp.name, name, args });
    }
  }
}

const commands = {
  async start({ options }) {
    const peer = new Peer(servers.length, options);
    servers.push(peer);
    return { server: peer.number, port: await peer.start() };
  },
  get(command, peer) {
    return peer.store[command.key] || [];
  },
  count(command, peer) {
    return (peer.store[command.key] || []).length;
  },
  emit({ namespace, room, args, volatile: drop }, peer) {
    let target = peer.io.of(namespace || "/");
    target = drop ? target.volatile : target;
    target = room ? target.to(room) : target;
    target.emit(...args);
    return null;
  },
  clients(command, peer) {
    return peer.io.engine.clientsCount;
  },
  polled(command, peer) {
    return Object.values(peer.io.engine.clients).every((session) => session.transport.writable);
  },
  miss({ sid }, peer) {
    peer.io.of("/").sockets.get(sid)?.conn.onClose("ping timeout");
    return null;
  },
  close(command, peer) {
    peer.io.close();
    return null;
  },
};

readline
  .createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const command = JSON.parse(line, decode);
    try {
      tell({ id: command.id, result: await commands[command.op](command, servers[command.server]) });
    } catch (error) {
      tell({ id: command.id, error: String(error.stack || error) });
    }
  })
  .on("close", () => process.exit(0));
tell({ ready: true });
