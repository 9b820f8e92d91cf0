// A headless Chromium, driven over its debugging pipe: no package and no port is needed.
//
//   const browser = await Browser.start();
//   const page = await browser.open("http://127.0.0.1:8000/demo/?name=ann");
//   await page.wait("!document.querySelector('#me').hidden");
//   await page.shot("ann.png");
//   await browser.end();
//
// Chromium reads commands from descriptor 3 and writes answers and events to descriptor 4, each a JSON text with a NUL.
import { spawn } from "node:child_process";
import { accessSync, constants, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
  "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
  "--disable-extensions", "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
  "--disable-backgrounding-occluded-windows", "--disable-dev-shm-usage", "--remote-debugging-pipe",
];
const ANSWER_MS = 60000;

export function program() {
  for (const folder of (process.env.PATH ?? "").split(":")) {
    for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
      try {
        accessSync(join(folder, name), constants.X_OK);
        return join(folder, name);
      } catch {
        // not here
      }
    }
  }
  return undefined;
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export class Browser {
  static async start(width = 1280, height = 800) {
    const browser = new Browser();
    browser.size = { width, height };
    browser.folder = mkdtempSync(join(tmpdir(), "lq-browser-"));
    browser.waiting = new Map();
    browser.pages = new Map();
    browser.count = 0;
    browser.process = spawn(
      program(), [...FLAGS, `--user-data-dir=${browser.folder}`, `--window-size=${width},${height}`, "about:blank"],
      { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] },
    );
    browser.ended = new Promise((done) => browser.process.once("exit", done));
    let rest = Buffer.alloc(0);
    browser.process.stdio[4].on("data", (bytes) => {
      rest = Buffer.concat([rest, bytes]);
      for (let end; (end = rest.indexOf(0)) >= 0; rest = rest.subarray(end + 1)) browser.take(JSON.parse(rest.subarray(0, end)));
    });
    await browser.call("Browser.getVersion");
    return browser;
  }

  async end() {
    this.call("Browser.close").catch(() => {});
    await Promise.race([this.ended, pause(5000).then(() => this.process.kill("SIGKILL"))]);
    for (let left = 50; ; left--) { // its helpers live, and write, a little longer than it does
      try {
        rmSync(this.folder, { recursive: true, force: true });
        break;
      } catch (error) {
        if (left === 0) throw error;
        await pause(100);
      }
    }
  }

  take(message) {
    const asked = this.waiting.get(message.id);
    if (asked) {
      this.waiting.delete(message.id);
      clearTimeout(asked.timer);
      if (message.error) asked.reject(new Error(`${asked.method}: ${message.error.message}`));
      else asked.resolve(message.result);
    } else if (message.method) {
      this.pages.get(message.sessionId)?.event(message.method, message.params);
    }
  }

  call(method, params = {}, sessionId = undefined) {
    const id = ++this.count;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${method}: the browser does not answer`)), ANSWER_MS);
      this.waiting.set(id, { resolve, reject, method, timer });
      this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  }

  // A window of its own: a page behind another one would not be painted.
  async open(url, { dark = false } = {}) {
    const { targetId } = await this.call("Target.createTarget", { url: "about:blank", newWindow: true });
    const { sessionId } = await this.call("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, sessionId);
    this.pages.set(sessionId, page);
    for (const domain of ["Runtime", "Log", "Page", "Network"]) await page.call(`${domain}.enable`);
    if (dark) {
      await page.call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: "dark" }] });
    }
    await page.call("Emulation.setDeviceMetricsOverride", { ...this.size, deviceScaleFactor: 1, mobile: false });
    await page.call("Page.navigate", { url });
    return page;
  }
}

class Page {
  constructor(browser, session) {
    this.browser = browser;
    this.session = session;
    this.errors = []; // what its console complained of
  }

  call(method, params) {
    return this.browser.call(method, params, this.session);
  }

  event(method, p) {
    if (method === "Runtime.exceptionThrown") {
      this.errors.push(p.exceptionDetails.exception?.description ?? p.exceptionDetails.text);
    } else if (method === "Runtime.consoleAPICalled" && (p.type === "error" || p.type === "warning")) {
      this.errors.push(p.args.map((a) => a.value ?? a.description).join(" "));
    } else if (method === "Log.entryAdded" && p.entry.level === "error") {
      this.errors.push(`${p.entry.text} ${p.entry.url ?? ""}`);
    }
  }

  async run(expression) {
    const got = await this.call("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (got.exceptionDetails) throw new Error(`${expression}: ${got.exceptionDetails.exception?.description}`);
    return got.result.value;
  }

  async wait(expression, seconds = 60) {
    const deadline = Date.now() + seconds * 1000;
    for (;;) {
      const value = await this.run(expression).catch(() => undefined); // it may be on its way to the page
      if (value) return value;
      if (Date.now() > deadline) {
        const text = await this.run("document.body.innerText").catch(() => "");
        throw new Error(`never true: ${expression}; the page says: ${JSON.stringify(text)} ${this.errors.join("; ")}`);
      }
      await pause(30);
    }
  }

  key(key, down) {
    return this.call("Input.dispatchKeyEvent", { type: down ? "keyDown" : "keyUp", key, code: key });
  }

  async click(x, y) {
    for (const type of ["mousePressed", "mouseReleased"]) {
      await this.call("Input.dispatchMouseEvent", { type, x, y, button: "left", clickCount: 1 });
    }
  }

  async shot(file) {
    writeFileSync(file, Buffer.from((await this.call("Page.captureScreenshot")).data, "base64"));
  }

  resize(width, height) {
    return this.call("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
  }

  // As a pulled cable.
  offline(is) {
    return this.call("Network.emulateNetworkConditions", { offline: is, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  }
}
