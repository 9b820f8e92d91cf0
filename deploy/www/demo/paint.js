// How the world looks: everything is drawn, nothing is loaded.

const CHUNK = 20; // one patch of meadow, in units
const FLOAT_MS = 1100;
const NARROW = 720; // px, as in demo.css: no room for a map

// The same number for the same place, so that the meadow stays where it is.
function noise(x, y, salt) {
  let h = (x * 374761393 + y * 668265263 + salt * 2147483647) | 0;
  h = Math.imul(h ^ (h >>> 13), 1274126177);
  return ((h ^ (h >>> 16)) >>> 0) / 4294967296;
}

function hue(name) {
  let h = 7;
  for (const ch of name ?? "") h = (h * 31 + ch.codePointAt(0)) % 360;
  return h;
}

export class Painter {
  constructor(canvas, world) {
    this.canvas = canvas;
    this.world = world;
    this.g = canvas.getContext("2d");
  }

  // Pixels per unit: what one can see fits the window.
  get scale() {
    return Math.max(3.2, Math.min(this.width, this.height * 1.5) / (1.75 * (this.world.view ?? 100)));
  }

  centre() {
    return this.world.self ?? { x: 2000, y: 2000 };
  }

  toScreen(x, y) {
    const c = this.centre();
    return [this.width / 2 + (x - c.x) * this.scale, this.height / 2 + (y - c.y) * this.scale];
  }

  toWorld(px, py) {
    const c = this.centre();
    return { x: c.x + (px - this.width / 2) / this.scale, y: c.y + (py - this.height / 2) / this.scale };
  }

  paint(now, target) {
    const ratio = window.devicePixelRatio || 1;
    this.width = this.canvas.clientWidth;
    this.height = this.canvas.clientHeight;
    if (this.canvas.width !== Math.round(this.width * ratio) || this.canvas.height !== Math.round(this.height * ratio)) {
      this.canvas.width = Math.round(this.width * ratio);
      this.canvas.height = Math.round(this.height * ratio);
    }
    this.g.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.meadow(now);
    if (!this.world.self) return;
    this.marks(now, target);
    const list = [...this.world.entities.values()].sort((a, b) => a.y - b.y);
    for (const e of list) this.entity(e, now);
    for (const e of list) this.label(e, now);
    this.float(now);
    this.map();
  }

  // ---- the ground ------------------------------------------------------------------------------------

  meadow(now) {
    const g = this.g, s = this.scale, a = this.toWorld(0, 0), b = this.toWorld(this.width, this.height);
    g.fillStyle = "#86ad5f";
    g.fillRect(0, 0, this.width, this.height);
    for (const draw of [this.patch, this.growth]) { // what grows stands on its neighbours' ground, too
      for (let cy = Math.floor(a.y / CHUNK); cy <= b.y / CHUNK; cy++) {
        for (let cx = Math.floor(a.x / CHUNK); cx <= b.x / CHUNK; cx++) draw.call(this, cx, cy, s, now);
      }
    }
    if (this.world.width) this.edge(g, s);
  }

  patch(cx, cy, s) {
    const g = this.g, [px, py] = this.toScreen(cx * CHUNK, cy * CHUNK);
    g.fillStyle = noise(cx, cy, 1) < 0.5 ? "#8ab263" : "#82a95b";
    g.beginPath();
    g.ellipse(px + 10 * s, py + 10 * s, (9 + 5 * noise(cx, cy, 2)) * s, (7 + 4 * noise(cx, cy, 3)) * s, noise(cx, cy, 4) * 3, 0, 7);
    g.fill();
  }

  growth(cx, cy, s, now) {
    const [px, py] = this.toScreen(cx * CHUNK, cy * CHUNK);
    for (let k = 0; k < 4; k++) {
      const x = px + noise(cx, cy, 10 + k) * CHUNK * s, y = py + noise(cx, cy, 20 + k) * CHUNK * s, kind = noise(cx, cy, 30 + k);
      if (kind < 0.62) this.grass(x, y, s, now, cx + cy + k);
      else if (kind < 0.8) this.flower(x, y, s, kind);
      else if (kind > 0.955) this.stone(x, y, s, kind);
    }
  }

  grass(x, y, s, now, phase) {
    const g = this.g, sway = Math.sin(now / 900 + phase) * 0.25 * s;
    g.strokeStyle = "#6d9449";
    g.lineWidth = Math.max(1, 0.28 * s);
    g.beginPath();
    for (const dx of [-0.7, 0, 0.7]) {
      g.moveTo(x + dx * s, y);
      g.lineTo(x + dx * 1.6 * s + sway, y - (1.9 - Math.abs(dx)) * s);
    }
    g.stroke();
  }

  flower(x, y, s, kind) {
    const g = this.g;
    g.fillStyle = kind < 0.68 ? "#f4f1dc" : kind < 0.74 ? "#f3c94f" : "#d98aa8";
    for (let k = 0; k < 5; k++) {
      g.beginPath();
      g.arc(x + Math.cos(k * 1.2566) * 0.55 * s, y + Math.sin(k * 1.2566) * 0.55 * s, 0.42 * s, 0, 7);
      g.fill();
    }
    g.fillStyle = "#b9862b";
    g.beginPath();
    g.arc(x, y, 0.35 * s, 0, 7);
    g.fill();
  }

  stone(x, y, s, kind) {
    const g = this.g, r = (1.6 + 30 * (kind - 0.955)) * s;
    g.fillStyle = "#6f8a4c";
    g.beginPath();
    g.ellipse(x, y + 0.35 * r, 1.15 * r, 0.5 * r, 0, 0, 7);
    g.fill();
    g.fillStyle = "#a9aa9d";
    g.beginPath();
    g.ellipse(x, y, r, 0.7 * r, 0, 0, 7);
    g.fill();
    g.fillStyle = "#c2c3b7";
    g.beginPath();
    g.ellipse(x - 0.25 * r, y - 0.2 * r, 0.5 * r, 0.3 * r, -0.4, 0, 7);
    g.fill();
  }

  edge(g, s) {
    const [x, y] = this.toScreen(0, 0);
    g.strokeStyle = "#5b7a3c";
    g.lineWidth = 2 * s;
    g.strokeRect(x, y, this.world.width * s, this.world.height * s);
  }

  // ---- who is there --------------------------------------------------------------------------------------

  shadow(x, y, rx) {
    const g = this.g;
    g.fillStyle = "#2a3d1a38";
    g.beginPath();
    g.ellipse(x, y, rx, rx * 0.42, 0, 0, 7);
    g.fill();
  }

  entity(e, now) {
    const [x, y] = this.toScreen(e.x, e.y), appear = Math.min(1, (now - e.born) / 250);
    this.g.globalAlpha = (e.hp === 0 ? 0.35 : 1) * appear;
    if (e.kind === "monster") this.slime(e, x, y, now);
    else if (e.kind === "drop") this.jelly(x, y, now);
    else this.player(e, x, y, now);
    this.g.globalAlpha = 1;
  }

  slime(e, x, y, now) {
    const g = this.g, s = this.scale, hit = now - (e.hitAt ?? -1e9) < 140;
    const squash = 1 + 0.09 * Math.sin(now / 260 + e.id * 1.7) + (e.walking ? 0.1 * Math.sin(now / 90) : 0);
    const w = 3.5 * s * squash, h = (3.9 * s) / squash;
    this.shadow(x, y, w * 1.05);
    const body = g.createLinearGradient(0, y - h, 0, y);
    body.addColorStop(0, hit ? "#ffffff" : "#8fd0e0");
    body.addColorStop(1, hit ? "#ffd7d0" : "#3f93ad");
    g.fillStyle = body;
    g.beginPath();
    g.moveTo(x - w, y);
    g.bezierCurveTo(x - w, y - h * 1.35, x + w, y - h * 1.35, x + w, y);
    g.quadraticCurveTo(x, y + h * 0.22, x - w, y);
    g.fill();
    g.fillStyle = "#ffffff90";
    g.beginPath();
    g.ellipse(x - 0.4 * w, y - 0.7 * h, 0.22 * w, 0.13 * h, -0.5, 0, 7);
    g.fill();
    g.fillStyle = "#17333c";
    for (const dx of [-0.32, 0.32]) {
      g.beginPath();
      g.ellipse(x + (dx + 0.12 * e.face) * w, y - 0.4 * h, 0.1 * w, 0.13 * h, 0, 0, 7);
      g.fill();
    }
  }

  jelly(x, y, now) {
    const g = this.g, s = this.scale, lift = Math.sin(now / 300) * 0.4 * s;
    this.shadow(x, y, 1.3 * s);
    g.fillStyle = "#59b3cc";
    g.beginPath();
    g.arc(x, y - 1.4 * s + lift, 1.25 * s, 0, 7);
    g.fill();
    g.fillStyle = "#ffffffb0";
    g.beginPath();
    g.arc(x - 0.4 * s, y - 1.8 * s + lift, 0.35 * s, 0, 7);
    g.fill();
  }

  player(e, x, y, now) {
    const g = this.g, s = this.scale, h = hue(e.name), mine = e === this.world.self;
    const bob = e.walking ? Math.abs(Math.sin(now / 110)) * 0.7 * s : 0, step = e.walking ? Math.sin(now / 110) : 0;
    this.shadow(x, y, 2.5 * s);
    if (mine) {
      g.strokeStyle = "#fff7";
      g.lineWidth = 0.35 * s;
      g.beginPath();
      g.ellipse(x, y, 3.2 * s, 1.4 * s, 0, 0, 7);
      g.stroke();
    }
    g.fillStyle = "#4b3a2a"; // feet
    for (const side of [-1, 1]) {
      g.beginPath();
      g.ellipse(x + side * 0.9 * s, y - 0.3 * s - Math.max(0, side * step) * 0.8 * s, 0.75 * s, 0.5 * s, 0, 0, 7);
      g.fill();
    }
    g.fillStyle = now - (e.hitAt ?? -1e9) < 140 ? "#fff" : `hsl(${h} 52% 52%)`; // cloak
    g.beginPath();
    g.moveTo(x - 1.1 * s, y - 4.6 * s - bob);
    g.quadraticCurveTo(x - 2.5 * s, y - 1.2 * s, x - 1.9 * s, y - 0.6 * s - bob * 0.4);
    g.lineTo(x + 1.9 * s, y - 0.6 * s - bob * 0.4);
    g.quadraticCurveTo(x + 2.5 * s, y - 1.2 * s, x + 1.1 * s, y - 4.6 * s - bob);
    g.fill();
    g.fillStyle = "#f0cfa8"; // face
    g.beginPath();
    g.arc(x, y - 5.6 * s - bob, 1.75 * s, 0, 7);
    g.fill();
    g.fillStyle = `hsl(${h} 45% 34%)`; // hood
    g.beginPath();
    g.arc(x, y - 5.8 * s - bob, 1.95 * s, Math.PI * 0.98, Math.PI * 2.02);
    g.fill();
    g.fillStyle = "#2b2118";
    for (const side of [-0.55, 0.55]) {
      g.beginPath();
      g.arc(x + (side + 0.35 * e.face) * s, y - 5.3 * s - bob, 0.24 * s, 0, 7);
      g.fill();
    }
  }

  label(e, now) {
    if (e.kind === "drop") return;
    const g = this.g, s = this.scale, [x, y] = this.toScreen(e.x, e.y), top = y - (e.kind === "player" ? 9.4 : 5.9) * s;
    g.textAlign = "center";
    if (e.kind === "player") {
      g.font = `600 ${Math.max(11, 2.2 * s)}px system-ui, "DejaVu Sans", sans-serif`;
      g.lineWidth = 3;
      g.strokeStyle = "#2a3d1ab0";
      g.strokeText(e.name, x, top);
      g.fillStyle = e === this.world.self ? "#fff3c9" : "#fff";
      g.fillText(e.name, x, top);
    }
    if (e.hp < e.hp_max) this.bar(x, top + 0.8 * s, e.hp / e.hp_max, e.kind);
    if (e.saying && e.saying.until > now) this.bubble(e.saying.text, x, top - 4.6 * s);
  }

  bar(x, y, share, kind) {
    const g = this.g, w = 6.4 * this.scale, h = Math.max(3, 0.7 * this.scale);
    g.fillStyle = "#1e2a14a0";
    g.fillRect(x - w / 2 - 1, y - 1, w + 2, h + 2);
    g.fillStyle = kind === "monster" ? "#e2705d" : "#6cbf5f";
    g.fillRect(x - w / 2, y, w * share, h);
  }

  bubble(text, x, y) {
    const g = this.g, cut = text.length > 48 ? `${text.slice(0, 46)} …` : text;
    g.font = `13px system-ui, "DejaVu Sans", sans-serif`;
    const w = g.measureText(cut).width + 18;
    g.fillStyle = "#fffffff2";
    g.beginPath();
    g.roundRect(x - w / 2, y - 17, w, 24, 9);
    g.moveTo(x - 5, y + 7);
    g.lineTo(x, y + 13);
    g.lineTo(x + 5, y + 7);
    g.fill();
    g.fillStyle = "#23291f";
    g.fillText(cut, x, y);
  }

  // ---- signs -----------------------------------------------------------------------------------------------

  marks(now, target) {
    const g = this.g, s = this.scale, goal = this.world.goal, prey = target && this.world.entities.get(target);
    if (goal && !prey) {
      const [x, y] = this.toScreen(goal.x, goal.y), r = (1.6 + 0.4 * Math.sin(now / 150)) * s;
      g.strokeStyle = "#fff3c9c0";
      g.lineWidth = 2;
      g.beginPath();
      g.ellipse(x, y, r, r * 0.5, 0, 0, 7);
      g.stroke();
    }
    if (prey) {
      const [x, y] = this.toScreen(prey.x, prey.y);
      g.strokeStyle = "#e2705d";
      g.lineWidth = 2.5;
      g.setLineDash([6, 4]);
      g.lineDashOffset = -now / 40;
      g.beginPath();
      g.ellipse(x, y, 5 * s, 2.3 * s, 0, 0, 7);
      g.stroke();
      g.setLineDash([]);
    }
  }

  float(now) {
    const g = this.g, s = this.scale;
    g.textAlign = "center";
    g.font = `700 ${Math.max(13, 3 * s)}px system-ui, "DejaVu Sans", sans-serif`;
    for (const f of this.world.floats) {
      const age = (now - f.at) / FLOAT_MS, [x, y] = this.toScreen(f.x, f.y);
      g.globalAlpha = Math.max(0, 1 - age);
      g.lineWidth = 3;
      g.strokeStyle = "#3a2a1a";
      g.strokeText(f.text, x, y - (8 + 9 * age) * s);
      g.fillStyle = f.colour;
      g.fillText(f.text, x, y - (8 + 9 * age) * s);
    }
    g.globalAlpha = 1;
  }

  // What is around, seen from above; the circle is how far one sees.
  map() {
    if (this.width < NARROW) return;
    const g = this.g, r = 62, cx = this.width - r - 18, cy = this.height - r - 56, view = this.world.view, self = this.world.self;
    g.fillStyle = "#2f4420b8";
    g.beginPath();
    g.arc(cx, cy, r, 0, 7);
    g.fill();
    for (const e of this.world.entities.values()) {
      const dx = ((e.x - self.x) / view) * r, dy = ((e.y - self.y) / view) * r;
      if (Math.hypot(dx, dy) > r - 3) continue;
      g.fillStyle = e === self ? "#fff3c9" : e.kind === "player" ? "#ffffff" : e.kind === "monster" ? "#7fd0e4" : "#f3c94f";
      g.beginPath();
      g.arc(cx + dx, cy + dy, e === self ? 3.5 : 2.5, 0, 7);
      g.fill();
    }
  }
}
