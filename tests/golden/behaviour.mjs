// What grammY does beyond storing: enhanced reads and writes, the memory storage, the session middleware.
import { lazySession, MemorySessionStorage, session } from "grammy";
import { enhance } from "./stores.mjs";

const NOW = 1_000_000;

/** A storage that keeps JSON texts and writes down every call. */
function logged(stored = {}) {
  const texts = new Map(Object.entries(stored).map(([key, value]) => [key, JSON.stringify(value)]));
  const calls = [];
  return {
    calls,
    now: () => Object.fromEntries([...texts].map(([key, text]) => [key, JSON.parse(text)])),
    storage: {
      read: async (key) => {
        calls.push(["read", key]);
        const text = texts.get(key);
        return text === undefined ? undefined : JSON.parse(text);
      },
      write: async (key, value) => {
        const text = JSON.stringify(value);
        calls.push(["write", key, JSON.parse(text)]);
        texts.set(key, text);
      },
      delete: async (key) => {
        calls.push(["delete", key]);
        texts.delete(key);
      },
    },
  };
}

async function stopped(now, run) {
  const real = Date.now;
  Date.now = () => now;
  try {
    return await run();
  } finally {
    Date.now = real;
  }
}

export async function enhanceCases() {
  const D = { name: "x" };
  const reads = [
    ["nothing stored", { migrations: [1], millisecondsToLive: 50 }, undefined],
    ["bare, no option", {}, D],
    ["bare, version", { migrations: [1, 2] }, D],
    ["bare, expiry: written back", { millisecondsToLive: 50 }, D],
    ["bare, both: written back unmigrated, without a version", { migrations: [1, 2], millisecondsToLive: 50 }, D],
    ["bare null, version", { migrations: [1] }, null],
    ["bare list, expiry", { millisecondsToLive: 50 }, [1, 2]],
    ["bare text, expiry", { millisecondsToLive: 50 }, "text"],
    ["bare with its own __d is taken for an envelope", {}, { __d: { inner: 1 }, name: "x" }],
    ["bare with its own __d, v and e", { migrations: [1, 2], millisecondsToLive: 50 }, { __d: { inner: 1 }, v: 1, e: NOW + 9, name: "x" }],
    ["envelope, no option", {}, { v: 3, __d: D, e: 1 }],
    ["envelope without version", { migrations: [1, 2] }, { __d: D }],
    ["envelope of version 1", { migrations: [1, 2, 3] }, { v: 1, __d: D }],
    ["envelope of the latest version", { migrations: [1, 2] }, { v: 2, __d: D }],
    ["envelope of a newer version: nothing runs", { migrations: [1, 2] }, { v: 5, __d: D }],
    ["envelope of a version between", { migrations: [1, 5] }, { v: 3, __d: D }],
    ["envelope older than the first migration", { migrations: [5, 6] }, { v: 2, __d: D }],
    ["versions are ordered as numbers", { migrations: [10, 9, 2] }, D],
    ["negative versions", { migrations: [-2, -1, 0] }, D],
    ["version null", { migrations: [1, 2] }, { v: null, __d: D }],
    ["version as text", { migrations: [1, 2] }, { v: "1", __d: D }],
    ["fractional versions are cut: 1 runs twice, 1.5 never", { migrations: [1, 1.5] }, D],
    ["fractional versions are cut: there is no 2", { migrations: [1, 1.5, 2.5] }, D],
    ["no migrations given", { migrations: [] }, D],
    ["envelope without expiry: written back with one", { millisecondsToLive: 50 }, { v: 1, __d: D }],
    ["expiry null", { millisecondsToLive: 50 }, { __d: D, e: null }],
    ["expires this millisecond: still there", { millisecondsToLive: 50 }, { __d: D, e: NOW }],
    ["expired a millisecond ago: deleted", { millisecondsToLive: 50 }, { __d: D, e: NOW - 1 }],
    ["live: not prolonged by reading", { millisecondsToLive: 50 }, { __d: D, e: NOW + 1 }],
    ["expired, without the expiry option", { migrations: [1] }, { v: 1, __d: D, e: 1 }],
    ["expired and old: deleted unmigrated", { migrations: [1, 2], millisecondsToLive: 50 }, { v: 1, __d: D, e: 1 }],
    ["bare, infinite", { millisecondsToLive: "Infinity" }, D],
    ["unknown fields of an envelope are kept by a write-back", { millisecondsToLive: 50 }, { __d: D, x: 1 }],
    ["envelope of null", { migrations: [1] }, { v: 1, __d: null }],
  ];
  const writes = [
    ["no option", {}, D],
    ["version", { migrations: [1, 2] }, D],
    ["expiry", { millisecondsToLive: 50 }, D],
    ["both", { migrations: [1, 2], millisecondsToLive: 50 }, D],
    ["infinite", { millisecondsToLive: "Infinity" }, D],
    ["zero milliseconds", { millisecondsToLive: 0 }, D],
    ["an own __d", { migrations: [1] }, { __d: 1 }],
    ["null", { migrations: [1] }, null],
    ["over a newer version: lowered", { migrations: [1, 2] }, D, { v: 9, __d: D }],
  ];
  const recorded = [];
  const record = (operation) => async ([name, options, value, before]) => {
    const stored = operation === "read" ? value : before;
    const log = logged(stored === undefined ? {} : { k: stored });
    const entry = { name, options, now: NOW, operation };
    if (stored !== undefined) entry.stored = stored;
    if (operation === "write") entry.value = value;
    try {
      const result = await stopped(NOW, () => enhance(log.storage, options)[operation]("k", value));
      if (operation === "read") Object.assign(entry, result === undefined ? { missing: true } : { result });
    } catch (error) {
      entry.error = error.message;
    }
    recorded.push({ ...entry, calls: log.calls, after: log.now().k });
  };
  for (const item of reads) await record("read")(item);
  for (const item of writes) await record("write")(item);
  const memory = new MemorySessionStorage();
  recorded.push({ name: "what an enhanced memory storage still offers", offers: Object.keys(enhance(memory, {})) });
  return recorded;
}

export function memoryCases() {
  const real = Date.now;
  let now = NOW;
  Date.now = () => now;
  try {
    const recorded = [];
    const state = (storage) => ({
      has: storage.has("k"),
      keys: storage.readAllKeys(),
    });
    const values = (storage) => ({ values: storage.readAllValues(), entries: storage.readAllEntries() });
    for (const [name, ttl, later] of [
      ["no time to live", undefined, 1e12],
      ["infinite", Infinity, 1e12],
      ["50 ms, after 50 ms: still there", 50, 50],
      ["50 ms, after 51 ms: gone", 50, 51],
      ["0 ms, at once", 0, 0],
      ["0 ms, after 1 ms", 0, 1],
    ]) {
      now = NOW;
      const one = new MemorySessionStorage(ttl);
      one.write("k", { count: 1 });
      const two = new MemorySessionStorage(ttl);
      two.write("k", { count: 1 });
      now = NOW + later;
      const before = state(one);
      const read = one.read("k");
      recorded.push({
        name, ttl: ttl === undefined ? null : ttl === Infinity ? "Infinity" : ttl, after_ms: later,
        before_a_read: before, read: read ?? "undefined", after_a_read: state(one),
        listing_values_first: { ...values(two), ...state(two) },
      });
    }
    now = NOW;
    const kept = new MemorySessionStorage(50);
    const value = { count: 1 };
    kept.write("k", value);
    now = NOW + 40;
    kept.read("k");
    now = NOW + 80;
    recorded.push({ name: "reading does not prolong", read: kept.read("k") ?? "undefined" });
    kept.write("k", value);
    value.count = 2;
    recorded.push({ name: "what is stored is the object itself", read: kept.read("k"), same: kept.read("k") === value });
    return recorded;
  } finally {
    Date.now = real;
  }
}

export async function sessionCases() {
  const recorded = [];
  const run = async (name, make, { stored = {}, handler = () => {}, outsideChats = false }) => {
    const log = logged(stored);
    const ctx = { chatId: outsideChats ? undefined : 42 };
    const seen = [];
    const entry = { name };
    try {
      await make(log.storage, ctx)(ctx, async () => {
        log.calls.push(["handler"]);
        await handler(ctx, (value) => seen.push(value === undefined ? "undefined" : JSON.parse(JSON.stringify(value))));
        log.calls.push(["handler over"]);
      });
    } catch (error) {
      entry.error = error.message;
    }
    if (seen.length) entry.seen = seen;
    recorded.push({ ...entry, calls: log.calls, after: log.now() });
  };
  const initial = () => ({ count: 0 });
  const one = { 42: { count: 1 } };
  const strict = (options = {}) => (storage) => session({ storage, ...options });
  const lazy = (options = {}) => (storage) => lazySession({ storage, ...options });
  const fail = () => { throw new Error("handler failed"); };

  await run("strict, untouched, stored", strict({ initial }), { stored: one });
  await run("strict, untouched, new, initial: written", strict({ initial }), {});
  await run("strict, untouched, new, no initial", strict(), {});
  await run("strict, looked at, stored: written", strict({ initial }), { stored: one, handler: (ctx, see) => see(ctx.session) });
  await run("strict, looked at, new, no initial: deleted", strict(), { handler: (ctx, see) => see(ctx.session) });
  await run("strict, changed in place", strict({ initial }), { stored: one, handler: (ctx) => { ctx.session.count++; } });
  await run("strict, assigned", strict({ initial }), { stored: one, handler: (ctx) => { ctx.session = { count: 9 }; } });
  await run("strict, null: deleted", strict({ initial }), { stored: one, handler: (ctx, see) => { ctx.session = null; see(ctx.session); } });
  await run("strict, undefined: deleted", strict({ initial }), { stored: one, handler: (ctx, see) => { ctx.session = undefined; see(ctx.session); } });
  await run("strict, null where nothing is stored: deleted all the same", strict(), { handler: (ctx) => { ctx.session = null; } });
  await run("strict, falsy values are written", strict(), { stored: one, handler: (ctx) => { ctx.session = 0; } });
  await run("strict, a promise is assigned", strict(), { stored: one, handler: (ctx) => { ctx.session = Promise.resolve({ count: 5 }); } });
  await run("strict, handler throws", strict({ initial }), { stored: one, handler: (ctx) => { ctx.session.count++; fail(); } });
  await run("strict, stored null: no initial, deleted when looked at", strict({ initial }), { stored: { 42: null }, handler: (ctx, see) => see(ctx.session) });
  await run("strict, initial gives a promise", strict({ initial: async () => ({ count: 0 }) }), { handler: (ctx) => { void ctx.session; } });
  await run("strict, prefix", strict({ initial, prefix: "bot:" }), {});
  await run("strict, no chat, untouched", strict({ initial }), { outsideChats: true });
  await run("strict, no chat, looked at", strict({ initial }), { outsideChats: true, handler: (ctx) => ctx.session });
  await run("strict, no chat, assigned", strict({ initial }), { outsideChats: true, handler: (ctx) => { ctx.session = {}; } });
  await run("strict, own key undefined, looked at", strict({ getSessionKey: () => undefined }), { handler: (ctx) => ctx.session });
  await run("strict, own key null is the text", strict({ initial, getSessionKey: () => null }), {});
  await run("strict, own key a number", strict({ initial, getSessionKey: async () => 7 }), {});
  await run("strict, own key empty", strict({ initial, getSessionKey: () => "" }), {});
  await run("installed twice", (storage) => async (ctx, next) =>
    session({ storage })(ctx, () => session({ storage })(ctx, next)), { stored: one });

  await run("lazy, untouched", lazy({ initial }), { stored: one });
  await run("lazy, looked at, stored: written", lazy({ initial }), { stored: one, handler: async (ctx, see) => see(await ctx.session) });
  await run("lazy, looked at but not awaited: loaded and written", lazy({ initial }), { stored: one, handler: (ctx) => { void ctx.session; } });
  await run("lazy, looked at, new: initial written", lazy({ initial }), { handler: async (ctx, see) => see(await ctx.session) });
  await run("lazy, looked at, new, no initial: deleted", lazy(), { handler: async (ctx, see) => see(await ctx.session) });
  await run("lazy, twice: one read, then no promise any more", lazy({ initial }), {
    stored: one,
    handler: async (ctx, see) => {
      see(ctx.session instanceof Promise);
      see(await ctx.session);
      see(ctx.session instanceof Promise);
    },
  });
  await run("lazy, assigned without reading", lazy({ initial }), { stored: one, handler: (ctx) => { ctx.session = { count: 9 }; } });
  await run("lazy, assigned while being read: the read is dropped", lazy({ initial }), {
    stored: one,
    handler: async (ctx, see) => {
      const pending = ctx.session;
      ctx.session = { count: 9 };
      see(await pending);
    },
  });
  await run("lazy, null", lazy({ initial }), { stored: one, handler: (ctx) => { ctx.session = null; } });
  await run("lazy, null, then looked at", lazy({ initial }), { stored: one, handler: async (ctx, see) => { ctx.session = null; see(await ctx.session); } });
  await run("lazy, handler throws", lazy({ initial }), { stored: one, handler: async (ctx) => { (await ctx.session).count++; fail(); } });
  await run("lazy, no chat, looked at", lazy({ initial }), { outsideChats: true, handler: (ctx) => ctx.session });
  await run("lazy, no chat, assigned", lazy({ initial }), { outsideChats: true, handler: (ctx) => { ctx.session = {}; } });
  await run("lazy multi", () => lazySession({ type: "multi" }), {});

  const multi = (more = {}) => (storage) => session({
    type: "multi",
    user: { storage, initial, prefix: "user:", getSessionKey: () => "7" },
    chat: { storage, initial, prefix: "chat:", ...more },
  });
  const both = { "user:7": { count: 1 }, "chat:42": { count: 2 } };
  await run("multi, untouched, stored", multi(), { stored: both });
  await run("multi, untouched, new: both initials written", multi(), {});
  await run("multi, one changed: only it is written", multi(), { stored: both, handler: (ctx) => { ctx.session.user.count++; } });
  await run("multi, one set to null", multi(), { stored: both, handler: (ctx) => { ctx.session.user = null; } });
  await run("multi, all set to null", multi(), { stored: both, handler: (ctx) => { ctx.session = null; } });
  await run("multi, all set to undefined", multi(), { stored: both, handler: (ctx) => { ctx.session = undefined; } });
  await run("multi, the whole replaced: not seen", multi(), { stored: both, handler: (ctx) => { ctx.session = { user: { count: 8 }, chat: { count: 9 } }; } });
  await run("multi, a part deleted with delete", multi(), { stored: both, handler: (ctx) => { delete ctx.session.user; } });
  await run("multi, looked through: all written", multi(), { stored: both, handler: (ctx, see) => see(ctx.session) });
  await run("multi, one without key, untouched", multi(), { outsideChats: true, stored: both });
  await run("multi, one without key, looked at", multi(), { outsideChats: true, stored: both, handler: (ctx) => ctx.session.chat });
  await run("multi, one without key, all set to null", multi(), { outsideChats: true, stored: both, handler: (ctx) => { ctx.session = null; } });
  await run("multi, handler throws", multi(), { stored: both, handler: (ctx) => { ctx.session.user.count++; fail(); } });
  await run("multi, same storage, no prefixes: one key for two parts", (storage) => session({
    type: "multi", a: { storage, initial: () => "a" }, b: { storage, initial: () => "b" },
  }), {});
  return recorded;
}
