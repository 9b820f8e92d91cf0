// What a platform's server would send. usage: node pay.mjs PORT KEY_FILE
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { request } from "node:http";

const [port, keyFile] = process.argv.slice(2);
const key = readFileSync(keyFile);
let failed = 0;

function is(sentence, expected, found) {
	const same = JSON.stringify(expected) === JSON.stringify(found);
	console.log(same ? `ok ${sentence}` : `not ok ${sentence}: expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`);
	failed += same ? 0 : 1;
}

const sign = (body) => createHmac("sha256", key).update(body).digest("hex");

function send(body, { signature = sign(body), path = "/platform/demo/pay", method = "POST" } = {}) {
	const headers = { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) };
	if (signature !== null)
		headers["X-Signature"] = signature;
	return new Promise((resolve, reject) => {
		const call = request({ host: "127.0.0.1", port, path, method, headers }, (answer) => {
			const parts = [];
			answer.on("data", (part) => parts.push(part));
			answer.on("end", () => resolve({ status: answer.statusCode, text: Buffer.concat(parts).toString() }));
		});
		call.on("error", reject);
		call.end(body);
	});
}

const payment = (change) => JSON.stringify({
	order: "o-1", uid: "payer0", product: "gems_100", amount: 4.99, currency: "EUR",
	time: Math.floor(Date.now() / 1000), ...change });

const error = async (sentence, status, word, body, options) => {
	const answer = await send(body, options);
	let json = {};
	try { json = JSON.parse(answer.text); } catch { /* it is shown below */ }
	is(sentence, [status, status, word, "none"], [answer.status, json.code, json.error, json.effect]);
};

const body = payment();
const first = await send(body);
is("a signed payment is granted", [200, "o-1", 100], [first.status, JSON.parse(first.text).order, JSON.parse(first.text).gems]);
is("the same again gets the same bytes", first, await send(body));
is("and again with the signature in capitals", first, await send(body, { signature: sign(body).toUpperCase() }));
await error("the same order with another body is a conflict", 409, "bad_request", payment({ amount: 5.99 }));
await error("the same order for another player is a conflict", 409, "bad_request", payment({ uid: "payer1" }));
await error("the same order for nobody is a conflict", 409, "bad_request", payment({ uid: "nobody" }));
await error("a wrong signature is denied", 401, "denied", body, { signature: "0".repeat(64) });
await error("a signature of another body is denied", 401, "denied", payment({ order: "o-2" }), { signature: sign(body) });
await error("no signature is denied", 401, "denied", body, { signature: null });
await error("an unknown uid is not found", 404, "not_found", payment({ order: "o-3", uid: "nobody" }));
await error("nobody is called \"\"", 404, "not_found", payment({ order: "o-5", uid: "" }));
await error("nobody is called by 300 bytes", 404, "not_found", payment({ order: "o-6", uid: "x".repeat(300) }));
await error("nobody has a control character in the uid", 404, "not_found", payment({ order: "o-7", uid: "a\u0000b" }));
await error("an unknown product is not found", 404, "not_found", payment({ order: "o-4", product: "gems_1" }));
await error("an ill-typed field is a bad request", 400, "bad_request", payment({ order: 5 }));
await error("a missing field is a bad request", 400, "bad_request", payment({ order: undefined }));
await error("what is no JSON is a bad request", 400, "bad_request", "{");
await error("an unknown platform is not found", 404, "not_found", body, { path: "/platform/other/pay" });
is("a GET is refused", 405, (await send("", { method: "GET" })).status);

// Many at once, each several times, as a platform that loses answers sends them.
const bodies = Array.from({ length: 20 }, (_, i) => payment({ order: `many-${i}`, uid: `payer${i % 2}` }));
const answers = await Promise.all([...bodies, ...bodies, ...bodies].map((one) => send(one)));
is("60 calls at once for 20 orders are answered", 60, answers.filter((answer) => answer.status === 200).length);
is("each repeat with the bytes of the first", true,
	answers.every((answer, i) => answer.text === answers[i % bodies.length].text));
process.exit(failed ? 1 : 0);
