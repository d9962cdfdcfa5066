/** Memory windows: keys to parts of a region, bound and taken back by requests, in order with what else a connection does. */
import { describe, expect, test } from "vitest";
import { PAGE_SIZE } from "../../src/base/index.ts";
import { ACCESS, KEY } from "../../src/layouts/rdma/index.ts";
import { ALL, at, firstDifference, Pair, START } from "./stand.ts";

const REMOTE = ACCESS.remoteRead | ACCESS.remoteWrite;

/** A writes and reads by the key of a window of B. */
function connected(options: { onDemand?: boolean; access?: number } = {}) {
  const pair = new Pair();
  const [x, y] = pair.connect();
  const { device, pd, process } = y.side;
  const access = (options.access ?? ALL | ACCESS.windowBind) | (options.onDemand ? ACCESS.onDemand : 0);
  const region = device.register(pd, { process, address: START, length: 16 * PAGE_SIZE, access });
  const window = device.allocateWindow(pd);
  const local = x.side.device.register(x.side.pd, {
    process: x.side.process,
    address: START,
    length: 64 * PAGE_SIZE,
    access: ALL,
  });
  const bind = (what: { page: number; pages: number; access?: number; window?: typeof window }): [number, string] => {
    const { page, pages, access: rights = REMOTE } = what;
    const length = pages * PAGE_SIZE;
    const key = y.pair.bindWindow({
      id: 7,
      window: what.window ?? window,
      region,
      address: at(page),
      length,
      access: rights,
    });
    const { work, status } = pair.next(y.queue);
    return [key, `${work} ${status}`];
  };
  const transfer = (work: "write" | "read", address: number, bytes: number, key: number): string => {
    const pieces = [{ address: START as number, length: bytes, key: local.key }];
    x.pair.send({ work, id: 1, pieces, remoteAddress: address, remoteKey: key });
    return pair.next(x.queue).status;
  };
  const invalidate = (key: number): string => {
    y.pair.invalidate({ id: 8, key });
    const { work, status } = pair.next(y.queue);
    return `${work} ${status}`;
  };
  return { pair, x, y, region, window, bind, transfer, invalidate };
}

describe("a memory window", () => {
  test.each([false, true])("opens a part of a region to a peer, and no more (region on demand: %s)", (onDemand) => {
    const { pair, x, y, region, window, bind, transfer, invalidate } = connected({ onDemand });
    const [key, bound] = bind({ page: 4, pages: 2 });
    expect([bound, KEY.index(key), window.key === key]).toEqual(["bind-window success", KEY.index(key), true]);
    const sent = x.side.fill(0, 2, 1);
    expect(transfer("write", at(4), 2 * PAGE_SIZE, key)).toBe("success");
    expect(firstDifference(y.side.read(4, 2), sent)).toBe(-1);
    expect(transfer("read", at(5), PAGE_SIZE, key)).toBe("success");
    expect(invalidate(key)).toBe("invalidate success");
    const [next, again] = bind({ page: 8, pages: 1 });
    expect([again, next !== key, transfer("write", at(8), PAGE_SIZE, next)]).toEqual([
      "bind-window success",
      true,
      "success",
    ]);
    y.side.device.freeWindow(window);
    y.side.device.freeWindow(window);
    y.side.device.deregister(region.key);
    pair.close(x, y);
    pair.settle();
    expect(pair.leftOvers()).toEqual([]);
  });

  test("counts from 0 where it is bound so", () => {
    const { x, y, bind, transfer } = connected();
    const [key] = bind({ page: 4, pages: 2, access: REMOTE | ACCESS.zeroBased });
    const sent = x.side.fill(0, 1, 1);
    expect(transfer("write", PAGE_SIZE, PAGE_SIZE, key)).toBe("success");
    expect(firstDifference(y.side.read(5, 1), sent)).toBe(-1);
    expect(transfer("write", at(4), PAGE_SIZE, key)).toBe("remote-access");
  });

  test.each<[string, (all: ReturnType<typeof connected>) => string]>([
    [
      "a byte beyond it",
      ({ bind, transfer }) => transfer("write", at(4) + 1, PAGE_SIZE, bind({ page: 4, pages: 1 })[0]),
    ],
    ["a byte before it", ({ bind, transfer }) => transfer("write", at(4) - 1, 2, bind({ page: 4, pages: 1 })[0])],
    [
      "a write where it is for reading",
      ({ bind, transfer }) => transfer("write", at(4), 8, bind({ page: 4, pages: 1, access: ACCESS.remoteRead })[0]),
    ],
    [
      "a key of before",
      ({ bind, transfer, window }) => {
        const old = window.key;
        bind({ page: 4, pages: 1 });
        return transfer("write", at(4), 8, old);
      },
    ],
    [
      "a key that was invalidated",
      ({ bind, transfer, invalidate }) => {
        const [key] = bind({ page: 4, pages: 1 });
        invalidate(key);
        return transfer("write", at(4), 8, key);
      },
    ],
    [
      "a window that was freed",
      ({ bind, transfer, y, window }) => {
        const [key] = bind({ page: 4, pages: 1 });
        y.side.device.freeWindow(window);
        return transfer("write", at(4), 8, key);
      },
    ],
  ])("refuses a peer %s, and nothing is written", (_, attempt) => {
    const all = connected();
    const before = all.y.side.fill(0, 16, 5);
    expect(attempt(all)).toBe("remote-access");
    expect(firstDifference(all.y.side.read(0, 16), before)).toBe(-1);
  });

  test("is another connection's key to nobody", () => {
    const { pair, x, bind } = connected();
    const [key] = bind({ page: 4, pages: 1 });
    const [other] = pair.connect();
    const { device, pd, process } = x.side;
    const local = device.register(pd, { process, address: START, length: PAGE_SIZE, access: ALL });
    const pieces = [{ address: START as number, length: 8, key: local.key }];
    other.pair.send({ work: "write", id: 1, pieces, remoteAddress: at(4), remoteKey: key });
    expect(pair.next(other.queue).status).toBe("remote-access");
  });

  test.each<[string, (all: ReturnType<typeof connected>) => string]>([
    [
      "twice without being taken back",
      ({ bind }) => {
        bind({ page: 4, pages: 1 });
        return bind({ page: 5, pages: 1 })[1];
      },
    ],
    ["past the end of the region", ({ bind }) => bind({ page: 15, pages: 2 })[1]],
    ["to nothing", ({ bind }) => bind({ page: 4, pages: 0 })[1]],
    [
      "of another domain",
      ({ bind, y }) => {
        const { device } = y.side;
        return bind({ page: 4, pages: 1, window: device.allocateWindow(device.allocateDomain()) })[1];
      },
    ],
  ])("is not bound %s: the request fails, and the connection with it", (_, attempt) => {
    const all = connected();
    expect(attempt(all)).toBe("bind-window window-bind");
    expect(all.y.pair.state).toBe("error");
  });

  test("is not bound to a region that forbids it, nor for writing to one that may not be written", () => {
    for (const access of [ALL, ACCESS.remoteRead | ACCESS.windowBind])
      expect(connected({ access }).bind({ page: 4, pages: 1 })[1]).toBe("bind-window window-bind");
    expect(
      connected({ access: ACCESS.remoteRead | ACCESS.windowBind }).bind({
        page: 4,
        pages: 1,
        access: ACCESS.remoteRead,
      })[1],
    ).toBe("bind-window success");
  });

  test("keeps its region registered, and its domain", () => {
    const { y, region, window, bind, invalidate } = connected();
    const [key] = bind({ page: 4, pages: 1 });
    const { device, pd } = y.side;
    const refused = expect.objectContaining({ errno: "EINVAL" });
    expect(() => device.deregister(region.key)).toThrow(refused);
    expect(() => device.freeDomain(pd)).toThrow(expect.objectContaining({ errno: "EBUSY" }));
    const advice = { kind: "read", pieces: [{ key, address: at(4), length: 8 }] } as const;
    expect(() => device.advise(pd, advice)).toThrow(refused);
    expect([invalidate(key), invalidate(key)]).toEqual(["invalidate success", "invalidate window-bind"]);
    device.deregister(region.key);
    device.freeWindow(window);
    device.freeDomain(pd);
  });

  test("is bound in order with what was posted before and after it", () => {
    const { pair, x, y, region, window } = connected();
    const { pair: own } = y;
    const pieces = [{ address: START as number, length: 16 * PAGE_SIZE, key: region.key }];
    const into = { process: x.side.process, address: START, length: 64 * PAGE_SIZE };
    const { key: theirs } = x.side.device.register(x.side.pd, { ...into, access: ALL });
    const receive = { address: START as number, length: 64 * PAGE_SIZE, key: theirs };
    x.pair.receive({ id: 9, pieces: [receive] });
    own.send({ work: "send", id: 1, pieces });
    const key = own.bindWindow({ id: 2, window, region, address: START, length: PAGE_SIZE, access: REMOTE });
    own.invalidate({ id: 3, key });
    expect([pair.next(y.queue).id, pair.next(y.queue).id, pair.next(y.queue).id]).toEqual([1, 2, 3]);
    expect(own.waiting.sends).toBe(0);
  });
});
