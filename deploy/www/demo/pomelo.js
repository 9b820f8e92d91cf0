// The pomelo protocol over WebSocket: packages, messages, handshake, heartbeat; requests answered by id, pushes by route.
//
//   const conn = await connect("127.0.0.1", 3014);
//   const answer = await conn.request("gate.gateHandler.queryEntry", { uid: "ann" });
//   conn.on("onChat", (push) => …);  conn.onClose = (why) => …;  conn.close();
//
// A package is 1 byte type, 3 bytes length, body. A message is a flag byte, an id (requests and answers), a route
// (requests, notifies, pushes) and JSON.

const HANDSHAKE = 1, ACK = 2, HEARTBEAT = 3, DATA = 4, KICK = 5;
const TRIPS = 20;
const REQUEST = 0, NOTIFY = 1, RESPONSE = 2, PUSH = 3;
const utf8 = { encode: (s) => new TextEncoder().encode(s), decode: (b) => new TextDecoder().decode(b) };

function makePackage(type, body = new Uint8Array(0)) {
  const bytes = new Uint8Array(4 + body.length);
  bytes.set([type, body.length >> 16, (body.length >> 8) & 255, body.length & 255]);
  bytes.set(body, 4);
  return bytes;
}

function makeMessage(type, id, route, object) {
  const head = [type << 1], name = utf8.encode(route);
  if (type === REQUEST) {
    for (let rest = id; ; rest = Math.floor(rest / 128)) {
      head.push(rest < 128 ? rest : (rest % 128) | 128);
      if (rest < 128) break;
    }
  }
  head.push(name.length, ...name);
  const body = utf8.encode(JSON.stringify(object)), bytes = new Uint8Array(head.length + body.length);
  bytes.set(head);
  bytes.set(body, head.length);
  return bytes;
}

function readMessage(bytes) {
  const flag = bytes[0], type = (flag >> 1) & 7, message = { type };
  let at = 1;
  if (type === REQUEST || type === RESPONSE) {
    message.id = 0;
    for (let factor = 1; ; factor *= 128) {
      message.id += (bytes[at] & 127) * factor;
      if (bytes[at++] < 128) break;
    }
  }
  if (type !== RESPONSE) {
    if (flag & 1) {
      message.code = (bytes[at] << 8) | bytes[at + 1];
      at += 2;
    } else {
      message.route = utf8.decode(bytes.subarray(at + 1, at + 1 + bytes[at]));
      at += 1 + bytes[at];
    }
  }
  message.body = JSON.parse(utf8.decode(bytes.subarray(at)) || "{}");
  return message;
}

let made = 0; // connections are told apart by their number

class Connection {
  constructor(socket) {
    this.socket = socket;
    this.serial = ++made;
    this.waiting = new Map(); // id → { resolve, reject, route, started }
    this.handlers = new Map(); // route → function
    this.nextId = 1;
    this.rest = new Uint8Array(0);
    this.trips = []; // ms of the last requests
    this.onClose = () => {};
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event) => this.receive(new Uint8Array(event.data));
    socket.onclose = () => this.ended(this.kicked ?? "the connection was lost");
  }

  // The network's and the servers' part: a page that is busy drawing, or an answer that waits for the disk, is no distance.
  get roundTrip() {
    return Math.min(...this.trips);
  }

  on(route, handler) {
    this.handlers.set(route, handler);
  }

  request(route, object = {}) {
    const id = this.nextId++;
    return new Promise((resolve, reject) => {
      if (this.socket.readyState !== WebSocket.OPEN) {
        reject(new Error("not connected"));
        return;
      }
      this.waiting.set(id, { resolve, reject, route, started: performance.now() });
      this.socket.send(makePackage(DATA, makeMessage(REQUEST, id, route, object)));
    });
  }

  notify(route, object = {}) {
    if (this.socket.readyState === WebSocket.OPEN) {
      this.socket.send(makePackage(DATA, makeMessage(NOTIFY, 0, route, object)));
    }
  }

  close() {
    this.onClose = () => {};
    this.socket.close();
  }

  // Packages may come several in one frame, or cut.
  receive(bytes) {
    const all = new Uint8Array(this.rest.length + bytes.length);
    all.set(this.rest);
    all.set(bytes, this.rest.length);
    let at = 0;
    while (all.length - at >= 4) {
      const n = (all[at + 1] << 16) | (all[at + 2] << 8) | all[at + 3];
      if (all.length - at - 4 < n) break;
      this.take(all[at], all.subarray(at + 4, at + 4 + n));
      at += 4 + n;
    }
    this.rest = all.slice(at);
  }

  take(type, body) {
    if (type === HANDSHAKE) this.shaken(JSON.parse(utf8.decode(body)));
    else if (type === HEARTBEAT) this.beat();
    else if (type === DATA) this.data(readMessage(body));
    else if (type === KICK) this.kicked = JSON.parse(utf8.decode(body) || "{}").reason ?? "kicked";
  }

  shaken(answer) {
    if (answer.code !== 200) {
      this.kicked = `the server refused the handshake (${answer.code})`;
      this.socket.close();
      return;
    }
    this.heartbeat = (answer.sys?.heartbeat ?? 0) * 1000;
    this.routes = answer.sys?.codeToRoute ?? {};
    this.socket.send(makePackage(ACK));
    this.ready?.();
  }

  // The server's heartbeat is answered after one interval; two intervals of silence are the end.
  beat() {
    if (!this.heartbeat) return;
    clearTimeout(this.beatTimer);
    clearTimeout(this.silenceTimer);
    this.beatTimer = setTimeout(() => {
      if (this.socket.readyState === WebSocket.OPEN) this.socket.send(makePackage(HEARTBEAT));
      this.silenceTimer = setTimeout(() => this.socket.close(), 2 * this.heartbeat);
    }, this.heartbeat);
  }

  data(message) {
    if (message.type === RESPONSE) {
      const asked = this.waiting.get(message.id);
      this.waiting.delete(message.id);
      if (!asked) return;
      this.trips.push(performance.now() - asked.started);
      if (this.trips.length > TRIPS) this.trips.shift();
      asked.resolve(message.body);
    } else if (message.type === PUSH) {
      this.handlers.get(message.route ?? this.routes[message.code])?.(message.body);
    }
  }

  ended(why) {
    clearTimeout(this.beatTimer);
    clearTimeout(this.silenceTimer);
    for (const asked of this.waiting.values()) asked.reject(new Error(why));
    this.waiting.clear();
    this.refused?.(new Error(why));
    this.onClose(why, this.kicked !== undefined);
  }
}

export function connect(host, port) {
  const secure = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${secure}://${host.includes(":") ? `[${host}]` : host}:${port}`);
  const connection = new Connection(socket);
  return new Promise((resolve, reject) => {
    connection.ready = () => {
      connection.refused = undefined;
      resolve(connection);
    };
    connection.refused = reject;
    socket.onopen = () =>
      socket.send(makePackage(HANDSHAKE, utf8.encode(JSON.stringify({ sys: { type: "js-websocket", version: "0.0.1" } }))));
  });
}
