// Loads, and what they come to; the same as benchmarks/python_worker/load.py.
const ORDER = 65_536; // sessions in the order in which they are updated, again and again
const IN_A_ROW = 64; // updates after which the event loop has its turn
const UNIT = 100; // nanoseconds, as the protocol has latencies
const ENDED = "end";

const now = () => process.hrtime.bigint();
const units = (begun) => Number(now() - begun) / UNIT;

/** Mulberry32: the same order of sessions in every run. */
function randomNumbers(below) {
  let state = 7;
  return Uint32Array.from({ length: ORDER }, () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  });
}

export class Load {
  handlerWaits = false;

  begin(keys) {
    this.numbers = randomNumbers(keys);
    this.next = 0;
    this.latencies = [];
    this.refused = 0;
  }

  number() {
    return this.numbers[this.next++ & (ORDER - 1)];
  }

  /** Keep `concurrency` updates under way. */
  async closed(update, { concurrency, seconds }) {
    this.handlerWaits = concurrency > 1;
    const end = now() + BigInt(Math.round(seconds * 1e9));
    let theLoopsTurn = null;
    const oneAfterTheOther = async () => {
      for (let begun = now(); begun < end; begun = now()) {
        await update(this.number());
        this.latencies.push(units(begun));
        if (this.latencies.length % IN_A_ROW === 0) {
          theLoopsTurn = new Promise((resolve) => setImmediate(resolve));
          theLoopsTurn.then(() => (theLoopsTurn = null));
        }
        if (theLoopsTurn) await theLoopsTurn;
      }
    };
    return this.measured(() => Promise.all(Array.from({ length: concurrency }, oneAfterTheOther)));
  }

  /** Begin an update for each line that `lines` gives, and note how long after that it is over. */
  async arrivals(update, { at_most: atMost }, lines) {
    this.handlerWaits = true;
    let underWay = 0;
    const all = new Promise((resolve, reject) => {
      let ended = false;
      const one = async (begun) => {
        underWay += 1;
        await update(this.number());
        this.latencies.push(units(begun));
        underWay -= 1;
        if (ended && underWay === 0) resolve();
      };
      lines.forEachLine((line) => {
        if (line === ENDED) {
          ended = true;
          lines.forEachLine(null);
          if (underWay === 0) resolve();
        } else if (underWay >= atMost) {
          this.refused += 1;
        } else {
          one(BigInt(line)).catch(reject);
        }
      });
    });
    return this.measured(() => all);
  }

  async measured(run) {
    const begun = now();
    const before = process.cpuUsage();
    await run();
    const { user, system } = process.cpuUsage(before);
    return {
      is: "measured",
      updates: this.latencies.length,
      seconds: Number(now() - begun) / 1e9,
      cpu: (user + system) / 1e6,
      latencies: Buffer.from(Uint32Array.from(this.latencies).buffer).toString("base64"),
      refused: this.refused,
    };
  }
}
