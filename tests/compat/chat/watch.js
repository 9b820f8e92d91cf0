// What a client does, seen from outside: its socket and its events. The same in Node and in a page.
(function (exports) {
  const DATA = 4;

  // A WebSocket that keeps count of what passes; mute: what is sent goes nowhere, as from a client that hangs.
  exports.watched = (WebSocket, seen) => class extends WebSocket {
    constructor(url) {
      super(url);
      seen.sockets++;
      seen.socket = this;
      this.addEventListener('message', (event) => exports.count(seen, 'in', event.data));
    }

    send(data) {
      exports.count(seen, 'out', data);
      if (!seen.mute) super.send(data);
    }
  };

  exports.fresh = () => ({
    sockets: 0, mute: false,
    in: { hello: 0, beats: 0, data: 0, codes: 0, json: 0 }, out: { beats: 0, data: 0, codes: 0, json: 0 },
  });

  // One package, as it goes over the wire.
  exports.count = (seen, way, data) => {
    const bytes = new Uint8Array(data.buffer ? data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength) : data);
    const to = seen[way];
    if (bytes[0] === 1) to.hello = bytes.length; // of the last handshake
    if (bytes[0] === 3) to.beats++;
    if (bytes[0] !== DATA) return;
    to.data++;
    if (bytes[4] & 1) to.codes++;
    if (bytes[bytes.length - 1] === 125) to.json++; // a body that ends in }
  };

  const WAIT_MS = 60000;
  exports.within = (what, promise) => {
    let timer;
    const late = new Promise((_, refuse) => {
      timer = setTimeout(() => refuse(new Error(`${what}: nothing for ${WAIT_MS} ms`)), WAIT_MS);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
  };

  // Events are kept until a test asks for them.
  exports.Watcher = class {
    constructor() {
      this.seen = exports.fresh();
      this.events = [];
      this.wake = () => {};
    }

    on(emitter, names) {
      for (const name of names) {
        emitter.on(name, (body) => {
          const plain = ['close', 'disconnect', 'io-error'].includes(name) ? {} : body;
          this.events.push({ name, body: plain === undefined ? {} : plain });
          this.wake();
        });
      }
    }

    async event(name) {
      const find = () => this.events.findIndex((e) => e.name === name);
      while (find() < 0) await exports.within(name, new Promise((done) => { this.wake = done; }));
      return this.events.splice(find(), 1)[0].body;
    }

    async beats(n) {
      const deadline = Date.now() + WAIT_MS;
      while (this.seen.out.beats < n) {
        if (Date.now() > deadline) throw new Error(`only ${this.seen.out.beats} heartbeats were sent`);
        await new Promise((done) => setTimeout(done, 20));
      }
    }

    counted() {
      return { in: this.seen.in, out: this.seen.out, sockets: this.seen.sockets };
    }

    mute() {
      this.seen.mute = true;
    }

    cut() {
      this.seen.socket.close();
    }
  };
  exports.EVENTS = ['onChat', 'onAdd', 'onLeave', 'onKick', 'close', 'heartbeat timeout', 'reconnect', 'error'];

  // pomelo-jsclient-websocket, whose one global client stands in window.
  exports.Browser = class extends exports.Watcher {
    constructor(window, watcher) {
      super();
      this.pomelo = window.pomelo;
      this.seen = watcher;
      this.handshakes = 0;
      this.user = null;
      this.on(this.pomelo, exports.EVENTS);
    }

    connect(host, port, user, reconnect) {
      return exports.within('connecting', new Promise((done) => this.pomelo.init(
        { host, port, user, reconnect, handshakeCallback: (told) => { this.user = told; } },
        () => { this.handshakes++; this.events.push({ name: 'ready', body: {} }); this.wake(); done(); },
      )));
    }

    told() {
      return this.user;
    }

    request(route, body) {
      return exports.within(route, new Promise((done) => this.pomelo.request(route, body, done)));
    }

    notify(route, body) {
      this.pomelo.notify(route, body);
    }

    close() {
      this.pomelo.disconnect();
    }
  };
})(typeof module === 'object' && module.exports ? module.exports : (window.watch = {}));
