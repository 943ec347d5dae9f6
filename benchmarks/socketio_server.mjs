// A Socket.IO server for the benchmarks: the real one, of tests/interop/js. Prints `ready PORT`, ends with its stdin.
//
// flood {count}: streams that many events "n" (number, 100 bytes) as frames made beforehand, so that the client is the limit
// burst {count}: emits the same
// echo {value}: acknowledges with it; anything else is counted, and `count` says how many there were

import { createRequire } from "node:module";
import http from "node:http";

const require = createRequire(new URL("../tests/interop/js/package.json", import.meta.url));
let Server;
try {
  ({ Server } = require("socket.io"));
} catch (error) {
  console.log("missing socket.io: python tests/interop/js/install.py");
  process.exit(0);
}

const listener = http.createServer();
const io = new Server(listener, { perMessageDeflate: false });
const text = "x".repeat(100);

function frame(message) {
  const payload = Buffer.from(message);
  const head = payload.length < 126 ? [0x81, payload.length] : [0x81, 126, payload.length >> 8, payload.length & 255];
  return Buffer.concat([Buffer.from(head), payload]);
}

function flood(socket, count) {
  const frames = [];
  for (let number = 0; number < count; number++) {
    frames.push(frame(`42["n",${number},"${text}"]`));
  }
  socket.conn.transport.socket._socket.write(Buffer.concat(frames));
}

function emit(socket, count) {
  for (let number = 0; number < count; number++) {
    socket.emit("n", number, text);
  }
}

io.on("connection", (socket) => {
  let seen = 0;
  socket.on("flood", (count) => flood(socket, count));
  socket.on("burst", (count) => emit(socket, count));
  socket.on("echo", (value, ack) => ack(value));
  socket.on("count", (ack) => ack(seen));
  socket.on("e", () => seen++);
});
listener.listen(0, "127.0.0.1", () => console.log(`ready ${listener.address().port}`));
process.stdin.resume().on("end", () => process.exit(0));
