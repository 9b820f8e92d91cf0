// What the player sees of the world: entities by id, where they are and where they go, what floats above them.
//
// The server tells the places ten times a second; between two of them everything glides. Our own place runs ahead of
// the server's answer, which corrects it when it differs.

const GLIDE_S = 0.15;
const SAY_MS = 6000, FLOAT_MS = 1100;

export class World {
  constructor() {
    this.leave();
  }

  leave() {
    this.entities = new Map();
    this.floats = [];
    this.self = undefined;
    this.goal = undefined;
  }

  enter(answer) {
    this.leave();
    for (const key of ["scene", "width", "height", "view", "speed", "range"]) this[key] = answer[key];
    this.cooldown = answer.cooldown_ms;
    for (const e of answer.entities) this.add(e);
    this.self = this.entities.get(answer.id) ?? this.add({ id: answer.id, kind: "player", x: answer.x, y: answer.y });
    this.told = { x: this.self.x, y: this.self.y };
  }

  add(e) {
    const entity = { ...e, toX: e.x, toY: e.y, born: performance.now(), face: 1 };
    this.entities.set(e.id, entity);
    return entity;
  }

  update(push) {
    for (const e of push.enter ?? []) this.add(e);
    for (const id of push.leave ?? []) if (id !== this.self?.id) this.entities.delete(id);
    for (const m of push.move ?? []) {
      const e = this.entities.get(m.id);
      if (!e) continue;
      e.toX = m.x;
      e.toY = m.y;
      if (e === this.self) this.corrected(m, true); // only the world itself moves us: we came back to life
    }
    for (const h of push.hp ?? []) this.hurt(this.entities.get(h.id), h.hp);
  }

  hurt(e, hp) {
    if (!e) return;
    if (e === this.self && hp < e.hp) this.float(e, `-${e.hp - hp}`, "#ff8d7a");
    if (hp < e.hp) e.hitAt = performance.now();
    e.hp = hp;
  }

  struck(e, damage) {
    e.hitAt = performance.now();
    this.float(e, `-${damage}`, "#ffffff");
  }

  float(e, text, colour) {
    if (e) this.floats.push({ x: e.x, y: e.y, text, colour, at: performance.now() });
  }

  say(name, text) {
    for (const e of this.entities.values()) {
      if (e.kind === "player" && e.name === name) e.saying = { text, until: performance.now() + SAY_MS };
    }
  }

  // ---- oneself -------------------------------------------------------------------------------------

  towardsGoal() {
    if (!this.goal || !this.self) return undefined;
    const dx = this.goal.x - this.self.x, dy = this.goal.y - this.self.y, distance = Math.hypot(dx, dy);
    if (distance <= Math.max(this.goal.near, 0.3)) {
      this.goal = undefined;
      return undefined;
    }
    return [dx / distance, dy / distance, distance];
  }

  ownPlace() {
    this.told = { x: this.self.x, y: this.self.y };
    return this.told;
  }

  selfMoved() {
    return Math.hypot(this.self.x - this.told.x, this.self.y - this.told.y) > 0.05;
  }

  // place: where the server says we were when we asked; what we walked since then stays.
  corrected(place, thrown) {
    if (!this.self) return;
    const dx = place.x - this.told.x, dy = place.y - this.told.y;
    if (thrown) {
      this.self.x = place.x;
      this.self.y = place.y;
      this.told = { ...place };
      this.goal = undefined;
    } else if (Math.hypot(dx, dy) > 0.5) {
      this.self.x += dx;
      this.self.y += dy;
      this.told = { x: place.x, y: place.y };
    }
  }

  inRange(e) {
    return Math.hypot(e.toX - this.told.x, e.toY - this.told.y) < this.range * 0.95;
  }

  // ---- all ---------------------------------------------------------------------------------------------

  step(seconds, direction) {
    if (direction && this.self.hp !== 0) {
      const reach = Math.min(this.speed * seconds, direction[2] ?? Infinity);
      this.self.x = Math.max(0, Math.min(this.width, this.self.x + direction[0] * reach));
      this.self.y = Math.max(0, Math.min(this.height, this.self.y + direction[1] * reach));
      if (direction[0]) this.self.face = Math.sign(direction[0]);
      this.self.walking = true;
    } else {
      this.self.walking = false;
    }
    this.self.toX = this.self.x;
    this.self.toY = this.self.y;
    const share = Math.min(1, seconds / GLIDE_S);
    for (const e of this.entities.values()) {
      if (e === this.self) continue;
      const dx = e.toX - e.x, dy = e.toY - e.y;
      e.walking = Math.hypot(dx, dy) > 0.15;
      if (Math.abs(dx) > 0.2) e.face = Math.sign(dx);
      e.x += dx * share;
      e.y += dy * share;
    }
    const now = performance.now();
    this.floats = this.floats.filter((f) => now - f.at < FLOAT_MS);
  }

  monsterAt(place) {
    let best, nearest = 7;
    for (const e of this.entities.values()) {
      const distance = Math.hypot(e.x - place.x, e.y - 2 - place.y);
      if (e.kind === "monster" && distance < nearest) {
        nearest = distance;
        best = e;
      }
    }
    return best;
  }

  count(kind) {
    let n = 0;
    for (const e of this.entities.values()) n += e.kind === kind;
    return n;
  }
}
