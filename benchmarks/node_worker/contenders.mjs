// The peers of Node.js, each as its documentation sets it up, in the fastest way it names.
//
// A contender is { update(number), close(), packages }. `load.handlerWaits` says whether the
// handler waits for something, as it does where several updates are under way.
import { newOrder } from "./order.mjs";

/** Updates through a session middleware over (ctx, next), as both grammY and Telegraf have one. */
function through(middleware, contextOf, load) {
  return async (number) => {
    const ctx = contextOf(number);
    await middleware(ctx, async () => {
      ctx.session.count += 1;
      if (load.handlerWaits) await undefined;
    });
  };
}

async function grammy(storage, items, load) {
  const { session } = await import("grammy");
  const middleware = session({ initial: () => newOrder(items), storage });
  return through(middleware, (number) => ({ chatId: number }), load);
}

async function telegraf(store, items, load) {
  const { session } = await import("telegraf");
  const middleware = session({ defaultSession: () => newOrder(items), store });
  const contextOf = (number) => ({
    update: { update_id: number },
    from: { id: number },
    chat: { id: number },
  });
  return through(middleware, contextOf, load);
}

/** Updates through a storage of GramIO's; its session plugin around it is left out, in its favour. */
function gramio(storage, items, load) {
  return async (number) => {
    const key = String(number);
    const data = (await storage.get(key)) ?? newOrder(items);
    data.count += 1;
    if (load.handlerWaits) await undefined;
    await storage.set(key, data);
  };
}

/** What GramIO's SQLite storage says to node:sqlite, for where its package can't be had. */
async function likeGramio(path) {
  const { DatabaseSync } = await import("node:sqlite");
  const database = new DatabaseSync(path);
  database.exec("PRAGMA journal_mode = WAL");
  database.exec(
    "CREATE TABLE sessions (key TEXT PRIMARY KEY, value JSONB NOT NULL, expires_at BIGINT)",
  );
  const read = database.prepare("SELECT * FROM sessions WHERE key = ?");
  const write = database.prepare("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?)");
  return {
    get(key) {
      const row = read.get(key);
      return row === undefined ? undefined : JSON.parse(row.value);
    },
    set: (key, value) => void write.run(key, JSON.stringify(value), null),
    close: () => database.close(),
  };
}

async function ioredis(url) {
  const { default: Redis } = await import("ioredis");
  return new Redis(url, { enableAutoPipelining: true });
}

const nothing = () => {};

export const contenders = {
  async "grammy-redis"(url, items, load) {
    const { RedisAdapter } = await import("@grammyjs/storage-redis");
    const instance = await ioredis(url);
    return {
      update: await grammy(new RedisAdapter({ instance }), items, load),
      close: () => instance.quit(),
      packages: ["grammy", "@grammyjs/storage-redis", "ioredis"],
    };
  },
  async "grammy-psql"(url, items, load) {
    const { PsqlAdapter } = await import("@grammyjs/storage-psql");
    const { default: pg } = await import("pg");
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    const storage = await PsqlAdapter.create({ tableName: "sessions", client });
    return {
      update: await grammy(storage, items, load),
      close: () => client.end(),
      packages: ["grammy", "@grammyjs/storage-psql", "pg"],
    };
  },
  async "grammy-file"(url, items, load) {
    const { FileAdapter } = await import("@grammyjs/storage-file");
    const storage = new FileAdapter({ dirName: new URL(url).pathname });
    return {
      update: await grammy(storage, items, load),
      close: nothing,
      packages: ["grammy", "@grammyjs/storage-file"],
    };
  },
  async "grammy-memory"(_, items, load) {
    const { MemorySessionStorage } = await import("grammy");
    return {
      update: await grammy(new MemorySessionStorage(), items, load),
      close: nothing,
      packages: ["grammy"],
    };
  },
  async "telegraf-memory"(_, items, load) {
    return {
      update: await telegraf(undefined, items, load),
      close: nothing,
      packages: ["telegraf"],
    };
  },
  async "telegraf-redis"(url, items, load) {
    const { Redis } = await import("@telegraf/session/redis");
    const { createClient } = await import("redis");
    const client = createClient({ url });
    return {
      update: await telegraf(Redis({ client }), items, load),
      close: () => client.quit(),
      packages: ["telegraf", "@telegraf/session", "redis"],
    };
  },
  async "gramio-redis"(url, items, load) {
    const { redisStorage } = await import("@gramio/storage-redis");
    const instance = await ioredis(url);
    return {
      update: gramio(redisStorage(instance), items, load),
      close: () => instance.quit(),
      packages: ["@gramio/storage-redis", "ioredis"],
    };
  },
  async "gramio-sqlite"(url, items, load) {
    const { sqliteStorage } = await import("@gramio/storage-sqlite");
    return {
      update: gramio(sqliteStorage({ filename: new URL(url).pathname }), items, load),
      close: nothing,
      packages: ["@gramio/storage-sqlite"],
    };
  },
  async "node-sqlite"(url, items, load) {
    const storage = await likeGramio(new URL(url).pathname);
    return { update: gramio(storage, items, load), close: storage.close, packages: [] };
  },
};
