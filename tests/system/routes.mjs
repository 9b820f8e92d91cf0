// Two players ask for every route of the reference game. usage: node routes.mjs CONNECTOR_PORT OTHER_PORT WORKERS
import { connect } from "node:net";

const [one, two, workers] = process.argv.slice(2);
const WAIT_MS = 60000;
let failed = 0;

// A pomelo client over raw TCP, as small as it can be.
class Player {
	static async open(port) {
		const player = new Player();
		player.serial = 0;
		player.asked = new Map();
		player.pushed = [];
		player.hears = () => {};
		player.socket = connect(port, "127.0.0.1");
		let rest = Buffer.alloc(0);
		player.socket.on("data", (bytes) => {
			rest = Buffer.concat([rest, bytes]);
			while (rest.length >= 4 && rest.length >= 4 + rest.readUIntBE(1, 3)) {
				const n = rest.readUIntBE(1, 3);
				player.take(rest[0], rest.subarray(4, 4 + n));
				rest = rest.subarray(4 + n);
			}
		});
		await new Promise((done, refuse) => {
			player.ready = done;
			player.socket.on("error", refuse);
			player.write(1, Buffer.from('{"sys":{"type":"test","version":"1"}}'));
		});
		return player;
	}

	write(type, body) {
		const head = Buffer.alloc(4);
		head[0] = type;
		head.writeUIntBE(body.length, 1, 3);
		this.socket.write(Buffer.concat([head, body]));
	}

	take(type, body) {
		if (type === 1) {
			this.write(2, Buffer.alloc(0));
			this.ready();
		} else if (type === 4 && (body[0] >> 1 & 7) === 2) {
			let at = 1, id = 0;
			for (let shift = 0; ; shift += 7) {
				id |= (body[at] & 127) << shift;
				if (!(body[at++] & 128)) break;
			}
			this.asked.get(id)?.(JSON.parse(body.subarray(at)));
			this.asked.delete(id);
		} else if (type === 4) {
			this.pushed.push({ route: body.subarray(2, 2 + body[1]).toString(), body: JSON.parse(body.subarray(2 + body[1])) });
			this.hears();
		}
	}

	ask(route, body = {}) {
		const id = ++this.serial, varint = id < 128 ? [id] : [id & 127 | 128, id >> 7];
		return new Promise((done, refuse) => {
			const timer = setTimeout(() => refuse(new Error(`${route}: no answer`)), WAIT_MS);
			this.asked.set(id, (answer) => { clearTimeout(timer); done(answer); });
			this.write(4, Buffer.concat([Buffer.from([0, ...varint, route.length]), Buffer.from(route),
				Buffer.from(typeof body === "string" ? body : JSON.stringify(body))]));
		});
	}

	// The next push of a route for which the condition holds.
	async push(route, holds = () => true) {
		const deadline = Date.now() + WAIT_MS;
		for (;;) {
			const at = this.pushed.findIndex((p) => p.route === route && holds(p.body));
			if (at >= 0) return this.pushed.splice(at, 1)[0].body;
			if (Date.now() > deadline) throw new Error(`no push ${route}`);
			await new Promise((done) => {
				const timer = setTimeout(done, 100);
				this.hears = () => { clearTimeout(timer); done(); };
			});
		}
	}
}

function same(expected, found, what) {
	const [a, b] = [JSON.stringify(expected), JSON.stringify(found)];
	if (a !== b) throw new Error(`${what}: expected ${a}, found ${b}`);
}

async function test(sentence, body) {
	try {
		await body();
		console.log(`ok ${sentence} (${workers} workers)`);
	} catch (err) {
		failed++;
		console.log(`not ok ${sentence} (${workers} workers): ${err.message}`);
	}
}

// An error has exactly this shape; the message names what is wrong.
async function refused(player, word, code, named, route, body) {
	const answer = await player.ask(route, body);
	same(["code", "error", "message", "effect"], Object.keys(answer), `${route}'s error`);
	same([code, word, "none"], [answer.code, answer.error, answer.effect], `${route} ${JSON.stringify(body)}`);
	if (!answer.message.includes(named)) throw new Error(`${route}: "${named}" is not in "${answer.message}"`);
}

const ENTER = "connector.entryHandler.enter", SEND = "chat.chatHandler.send", BUY = "role.shopHandler.buy";
const ann = await Player.open(one), bob = await Player.open(two);
let role;

await test("a guest's first entry creates its role, whose number every client can read", async () => {
	const answer = await ann.ask(ENTER, { username: "ann", rid: "r" });
	same(["code", "uid", "role", "users", "resume", "resumed"], Object.keys(answer), "enter");
	role = answer.role;
	same("id,uid,name,level,exp,gold,gems,scene,x,y", Object.keys(role).join(), "role");
	same(["ann", "ann", 1, 1000, 0, 1], [role.uid, role.name, role.level, role.gold, role.gems, role.scene], "role");
	if (!Number.isSafeInteger(role.id) || role.id < 1) throw new Error(`id ${role.id} is not below 2^53`);
	const other = await bob.ask(ENTER, { username: "bob", rid: "r" });
	if (other.role.id === role.id) throw new Error("two roles have one number");
	same(["ann", "bob"], other.users, "users");
	same({ user: "bob" }, await ann.push("onAdd"), "onAdd");
	same(role, (await ann.ask("role.roleHandler.get")).role, "get");
});

await test("what is said is ann's, whatever `from` claims to be", async () => {
	for (const from of ["bob", 5, null, true, { name: "bob" }, ["bob"]]) {
		same({ code: 200 }, await ann.ask(SEND, { rid: "r", content: "hi", from, target: "*" }), `from ${JSON.stringify(from)}`);
		const heard = await bob.push("onChat");
		same(["hi", "ann", "*", "room"], [heard.msg, heard.from, heard.target, heard.channel], "onChat");
	}
	await refused(ann, "bad_request", 400, "form", SEND, { content: "hi", target: "*", form: "bob" });
});

await test("each refusal of chat says what is wrong", async () => {
	await refused(ann, "bad_request", 400, "content", SEND, { target: "*" });
	await refused(ann, "bad_request", 400, "target", SEND, { content: "x", target: "*", channel: "private" });
	await refused(ann, "bad_request", 400, "channel", SEND, { content: "x", target: "*", channel: "here" });
	await refused(ann, "denied", 403, "rid", SEND, { content: "x", target: "*", rid: "elsewhere" });
	await refused(ann, "denied", 403, "team", SEND, { content: "x", target: "*", channel: "team" });
	await refused(ann, "not_found", 404, "target", SEND, { content: "x", target: "nobody" });
});

await test("buying charges once and refuses what it must", async () => {
	const order = { item: 1, count: 2, order: "o-1" }, answer = { code: 200, gold: 980, item: 1, count: 2 };
	same(answer, await ann.ask(BUY, order), "buy");
	same(answer, await ann.ask(BUY, order), "the same order");
	await refused(ann, "bad_request", 400, "order", BUY, { ...order, count: 3 });
	await refused(ann, "not_found", 404, "item", BUY, { ...order, item: 99, order: "o-2" });
	await refused(ann, "denied", 403, "gold", BUY, { ...order, count: 999, order: "o-2" });
	for (const count of [0, 1000, -1, 1.5, "1", null]) await refused(ann, "bad_request", 400, "count", BUY, { ...order, count, order: "o-2" });
	for (const bad of ["", "x".repeat(65), 7, null]) await refused(ann, "bad_request", 400, "order", BUY, { ...order, order: bad });
	same({ code: 200, items: [{ item: 1, count: 2 }] }, await ann.ask("role.bagHandler.list"), "list");
});

await test("two see each other in a scene, and none walks faster than it can", async () => {
	const began = Date.now();
	const here = await ann.ask("scene.sceneHandler.enter"), there = await bob.ask("scene.sceneHandler.enter", { scene: 1 });
	same("code,scene,id,x,y,width,height,view,speed,range,cooldown_ms,entities", Object.keys(here).join(), "enter");
	same("id,kind,name,x,y,hp,hp_max", Object.keys(there.entities[0]).join(), "entity");
	same(["ann", "bob"], there.entities.map((e) => e.name).sort(), "entities");
	await ann.push("onSceneUpdate", (u) => u.enter?.some((e) => e.name === "bob" && e.id === there.id));
	const step = await ann.ask("scene.sceneHandler.move", { x: here.x + 100, y: here.y });
	const took = Math.max(1, (Date.now() - began) / 1000);
	if (!(step.x > here.x && step.x <= here.x + here.speed * took * 1.1)) throw new Error(`${here.x} to ${step.x} in ${took} s`);
	await bob.push("onSceneUpdate", (u) => u.move?.some((e) => e.id === here.id));
	await refused(ann, "bad_request", 400, "x", "scene.sceneHandler.move", '{"x":NaN,"y":1}');
	await refused(ann, "bad_request", 400, "y", "scene.sceneHandler.move", { x: 1 });
	await refused(ann, "not_found", 404, "", "scene.sceneHandler.attack", { target: 12 });
	await refused(ann, "denied", 403, "", "scene.sceneHandler.attack", { target: there.id });
	await refused(ann, "not_found", 404, "scene", "scene.sceneHandler.enter", { scene: 99 });
	const body = '{"a":[],"b":{},"n":null,"big":9007199254740993}';
	same({ a: [], b: {}, big: 9007199254740993n.toString(), n: null },
		{ ...await ann.ask("scene.sceneHandler.echo", body), big: "9007199254740993" }, "echo");
});

await test("a team knows its members by their names of now", async () => {
	const { team } = await ann.ask("team.teamHandler.create");
	same({ code: 200 }, await ann.ask("team.teamHandler.invite", { uid: "bob" }), "invite");
	const invited = await bob.push("onTeam");
	same(["invite", team.id, "ann"], [invited.event, invited.team, invited.from], "onTeam");
	same(["ann", "bob"], (await bob.ask("team.teamHandler.accept", { team: team.id })).team.members.map((m) => m.uid), "accept");
	same({ code: 200 }, await bob.ask(SEND, { content: "here", target: "*", channel: "team" }), "send to the team");
	same("bob", (await ann.push("onChat", (c) => c.channel === "team")).from, "onChat");
	const renamed = (await bob.ask("role.roleHandler.rename", { name: "bobby" })).role;
	same("bobby", renamed.name, "rename");
	await ann.push("onTeam", (t) => t.info?.members.some((m) => m.name === "bobby"));
	await ann.push("onAdd", (a) => a.user === "bobby");
	await refused(bob, "denied", 403, "leader", "team.teamHandler.kick", { uid: "ann" });
	same({ code: 200 }, await bob.ask("team.teamHandler.leave"), "leave");
	await refused(bob, "denied", 403, "team", "team.teamHandler.leave", {});
});

await test("what is no client's route is not found", async () => {
	for (const route of ["nope.a.b", "role.roleRemote.get", "gate.gateHandler.queryEntry", "x"]) {
		await refused(ann, "not_found", 404, route, route, {});
	}
	await refused(ann, "bad_request", 400, "", ENTER, { username: "ann" });
});

ann.socket.destroy();
bob.socket.destroy();
process.exit(failed ? 1 : 0);
