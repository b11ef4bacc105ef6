// Carries out the orders that come over standard input; see benchmarks/protocol.py.
import { readFileSync } from "node:fs";
import { contenders } from "./contenders.mjs";
import { Lines } from "./lines.mjs";
import { Load } from "./load.mjs";

const FILLERS = 16; // updates at a time while the first sessions are stored
const TOUCHING = 64; // and while memory is measured

const lines = new Lines(process.stdin);
const load = new Load();
let contender;
let keys;

async function updateAll(first, count, together) {
  let next = first;
  const some = async () => {
    while (next < first + count) await contender.update(next++);
  };
  await Promise.all(Array.from({ length: together }, some));
}

function versionOf(name) {
  const path = new URL(`../node_modules/${name}/package.json`, import.meta.url);
  return JSON.parse(readFileSync(path, "utf8")).version;
}

const orders = {
  async open(order) {
    contender = await contenders[order.contender](order.place, order.items, load);
    keys = order.keys;
    await updateAll(0, keys, FILLERS);
    const versions = contender.packages.map((name) => [name, versionOf(name)]);
    return { is: "opened", versions: { node: process.versions.node, ...Object.fromEntries(versions) } };
  },
  async closed(order) {
    load.begin(keys);
    return load.closed(contender.update, order);
  },
  async arrivals(order) {
    load.begin(keys);
    return load.arrivals(contender.update, order, lines);
  },
  async touch({ first, count }) {
    load.handlerWaits = true;
    await updateAll(first, count, TOUCHING);
    globalThis.gc();
    return { is: "touched", resident: process.memoryUsage.rss() };
  },
};

for (let text = await lines.next(); text !== null; text = await lines.next()) {
  let answer;
  try {
    const order = JSON.parse(text);
    answer = await orders[order.do](order);
  } catch (error) {
    answer = { is: "failed", reason: String(error) };
  }
  await new Promise((resolve) => process.stdout.write(`${JSON.stringify(answer)}\n`, resolve));
}
await contender?.close();
process.exit();
