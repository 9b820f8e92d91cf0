'use strict';
// A browser window as far as pomelo's JavaScript client needs one: the npm packages run in it unmodified, with the
// text encoding of a browser (no Buffer), and each window is a player of its own.
const fs = require('fs');
const path = require('path');
const vm = require('vm');
const { EventEmitter } = require('events');
const WebSocket = require('ws');

const source = (name, file) => {
  const at = path.join(path.dirname(require.resolve(name + '/package.json')), file);
  return new vm.Script(fs.readFileSync(at, 'utf8'), { filename: at });
};
const scripts = [
  source('pomelo-protocol', 'lib/protocol.js'),
  source('pomelo-protobuf', 'lib/client/protobuf.js'),
  source('pomelo-jsclient-websocket', 'lib/pomelo-client.js'),
];

exports.open = () => {
  const stored = new Map();
  const quiet = () => {};
  const window = {
    WebSocket, EventEmitter, setTimeout, clearTimeout, module: {},
    console: { log: quiet, error: quiet, warn: quiet },
    localStorage: {
      getItem: (key) => (stored.has(key) ? stored.get(key) : null),
      setItem: (key, value) => stored.set(key, String(value)),
    },
  };
  window.window = window;
  vm.createContext(window);
  for (const script of scripts) script.runInContext(window);
  return new Player(window.pomelo);
};

const WAIT_MS = 60000;
const within = (what, promise) => {
  let timer;
  const late = new Promise((_, refuse) => {
    timer = setTimeout(() => refuse(new Error(`${what}: nothing for ${WAIT_MS} ms`)), WAIT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

// The client's callbacks as promises; what is pushed is kept until a test asks for it.
class Player {
  constructor(pomelo) {
    this.pomelo = pomelo;
    this.pushed = [];
    this.waiting = null;
    for (const route of ['onChat', 'onAdd', 'onLeave', 'onKick', 'disconnect']) {
      pomelo.on(route, (body) => {
        this.pushed.push({ route, body });
        if (this.waiting) this.waiting();
      });
    }
  }

  connect(host, port) {
    return within('connecting', new Promise((done) => this.pomelo.init({ host, port, log: true }, done)));
  }

  request(route, body) {
    return within(route, new Promise((done) => this.pomelo.request(route, body, done)));
  }

  // The next push of this route; earlier ones of other routes stay.
  async push(route) {
    const find = () => this.pushed.findIndex((p) => p.route === route);
    while (find() < 0) await within(route, new Promise((done) => { this.waiting = done; }));
    return this.pushed.splice(find(), 1)[0].body;
  }

  close() {
    this.pomelo.disconnect();
  }
}
