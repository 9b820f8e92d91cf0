'use strict';
// The clients under test, each as the same kind of player: connect, request, notify, event, close.
const { EventEmitter } = require('events');
const fs = require('fs');
const http = require('http');
const path = require('path');
const vm = require('vm');
const WebSocket = require('ws');
const { bundle } = require('./bundle');
const watch = require('./watch');

const quiet = () => {};

// pomelo-jsclient-websocket in a window of its own, with a browser's text encoding (no Buffer).
const inWindow = {
  name: 'jsclient_in_node',
  codes: true,
  keeps: true,
  open: async ({ protobuf }) => {
    const stored = new Map(), seen = watch.fresh();
    const window = {
      WebSocket: watch.watched(WebSocket, seen), EventEmitter, setTimeout, clearTimeout,
      console: { log: quiet, error: quiet, warn: quiet },
      localStorage: {
        getItem: (key) => (stored.has(key) ? stored.get(key) : null),
        setItem: (key, value) => stored.set(key, String(value)),
      },
    };
    window.window = window;
    vm.createContext(window);
    vm.runInContext(bundle({ protobuf }), window);
    return new watch.Browser(window, seen);
  },
  end: quiet,
};

// pomelo-nodejsclient-websocket: another client, on Buffers, with pomelo-protobuf's own codec for servers.
class NodePlayer extends watch.Watcher {
  constructor(Pomelo) {
    super();
    this.pomelo = new Pomelo({ logger: { debug: quiet, info: quiet, warn: quiet, error: quiet, trace: quiet } });
    this.on(this.pomelo, watch.EVENTS);
    const { send, processPackage } = this.pomelo;
    this.pomelo.send = (packet) => {
      watch.count(this.seen, 'out', packet);
      try {
        if (!this.seen.mute) send.call(this.pomelo, packet);
      } catch (error) {
        if (error.message !== 'not opened') throw error; // its heartbeat timer goes on when the socket is closed
      }
    };
    this.pomelo.processPackage = (one) => {
      if (one.type === 3) this.seen.in.beats++;
      if (one.type === 4) watch.count(this.seen, 'in', Buffer.concat([Buffer.from([4, 0, 0, 0]), one.body]));
      processPackage.call(this.pomelo, one);
    };
  }

  connect(host, port, user) {
    this.seen.sockets++;
    return watch.within('connecting', new Promise((done) => this.pomelo.init({ host, port, user }, done)));
  }

  request(route, body) {
    return watch.within(route, new Promise((done) => this.pomelo.request(route, body, (_, answer) => done(answer))));
  }

  notify(route, body) {
    this.pomelo.notify(route, body);
  }

  cut() {
    this.pomelo.socket.close();
  }

  close() {
    this.pomelo.disconnect();
  }
}

const onBuffers = {
  name: 'nodejsclient',
  codes: false, // it reads codes but looks for its own in a place where it has not put them
  noReason: true, // its onKick tells nobody why
  open: async () => new NodePlayer(require('pomelo-nodejsclient-websocket')),
  end: quiet,
};

// pomelo-jsclient-websocket in a headless Chromium; each player is a page.
const inChromium = async () => {
  const { Browser, program } = await import('../../browser/browser.mjs');
  if (!program()) return null;
  const server = http.createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, 'http://x');
    const file = { '/page.html': 'page.html', '/watch.js': 'watch.js' }[pathname];
    const protobuf = (request.headers.referer || '').includes('protobuf') || searchParams.has('protobuf');
    response.setHeader('Content-Type', pathname.endsWith('.html') ? 'text/html' : 'text/javascript');
    response.end(file ? fs.readFileSync(path.join(__dirname, file)) : pathname === '/client.js' ? bundle({ protobuf }) : '');
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const browser = await Browser.start(200, 200);
  const remote = (page) => new Proxy({}, {
    get: (_, name) => (name === 'then' ? undefined : (...args) =>
      page.run(`Promise.resolve(window.player.${name}(...${JSON.stringify(args)})).then((v) => v === undefined ? null : v)`)),
  });
  return {
    name: 'jsclient_in_chromium',
    codes: true,
    keeps: true,
    open: async ({ protobuf }) => {
      const page = await browser.open(`http://127.0.0.1:${server.address().port}/page.html${protobuf ? '?protobuf' : ''}`);
      await page.wait('window.player');
      return remote(page);
    },
    end: async () => {
      server.close();
      await browser.end();
    },
  };
};

exports.all = async () => [inWindow, onBuffers, await inChromium()].filter(Boolean);
