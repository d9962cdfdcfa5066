import { describe, expect, test } from "vitest";
import { Random } from "../../../base/index.ts";
import { decodeChain, encodeChain } from "../../../layouts/spdm/index.ts";
import { leafOf, Vendor } from "./certificates.ts";
import { sha256, textBytes } from "./digest.ts";
import { IdealKeys } from "./keys.ts";
import { SessionEnd, verifyData } from "./session.ts";

const random = Random.fromSeed(1);

describe("ideal keys", () => {
  const keys = new IdealKeys();
  const [a, b] = [keys.pair(random), keys.pair(random)];

  test("only the holder of a pair signs, and whoever has the public key sees it", () => {
    const signature = keys.sign(a, textBytes("said"));
    expect(keys.verify(a.publicKey, textBytes("said"), signature)).toBe(true);
    expect(keys.verify(b.publicKey, textBytes("said"), signature)).toBe(false);
    expect(keys.verify(a.publicKey, textBytes("not said"), signature)).toBe(false);
    expect(keys.verify(new Uint8Array(32), textBytes("said"), signature)).toBe(false);
  });

  test("two holders agree on the same secret, which a third does not get", () => {
    const c = keys.pair(random);
    expect(keys.agree(a, b.publicKey)).toEqual(keys.agree(b, a.publicKey));
    expect(keys.agree(c, b.publicKey)).not.toEqual(keys.agree(a, b.publicKey));
    expect(keys.agree(a, new Uint8Array(32))).toBeUndefined();
  });
});

describe("a certificate chain", () => {
  const keys = new IdealKeys();
  const vendor = new Vendor(keys, random, "maker");
  const device = keys.pair(random);
  const chain = vendor.chainFor({ subject: "disk 7", publicKey: device.publicKey });

  test("names the device that the vendor made, and begins with the root's digest", () => {
    expect(leafOf(keys, chain)).toEqual({ subject: "disk 7", publicKey: device.publicKey });
    expect(decodeChain(chain)?.rootDigest).toEqual(vendor.rootDigest);
  });

  test("with any byte changed certifies nobody", () => {
    for (let at = 0; at < chain.length; at += 3)
      if (at !== 3)
        // two reserved bytes, which say nothing
        expect(
          leafOf(
            keys,
            chain.map((byte, i) => (i === at ? byte ^ 1 : byte)),
          ),
        ).toBeUndefined();
  });

  test("that says another root than it has certifies nobody", () => {
    const { certificates } = decodeChain(chain)!;
    expect(leafOf(keys, encodeChain({ rootDigest: sha256(textBytes("other")), certificates }))).toBeUndefined();
  });
});

describe("a session", () => {
  const secret = { id: 0xabcd_0001, shared: sha256(textBytes("shared")), transcript: sha256(textBytes("words")) };
  const ends = () => [new SessionEnd(secret, "requester"), new SessionEnd(secret, "responder")] as const;

  test("opens what the other end said, in order, both ways", () => {
    const [manager, device] = ends();
    for (let i = 0; i < 5; i++) {
      const said = new Uint8Array(i * 40).fill(i);
      expect(device.open(manager.seal(said))).toEqual(said);
      expect(manager.open(device.seal(said))).toEqual(said);
    }
  });

  test("shows nothing of what is said, nor that the same was said again", () => {
    const [manager] = ends();
    const said = new Uint8Array(64).fill(7);
    const [first, second] = [manager.seal(said), manager.seal(said)];
    expect(first).not.toEqual(second);
    expect(first.filter((byte) => byte === 7).length).toBeLessThan(8);
  });

  test("does not open what was changed, repeated, left out, or said by itself; and the next one still opens", () => {
    const [manager, device] = ends();
    const records = Array.from({ length: 3 }, (_, i) => manager.seal(Uint8Array.of(i)));
    expect(device.open(records[1]!)).toBeUndefined();
    expect(device.open(records[0]!.map((byte, i) => (i === 8 ? byte ^ 1 : byte)))).toBeUndefined();
    expect(device.open(device.seal(Uint8Array.of(9)))).toBeUndefined();
    expect(device.open(records[0]!)).toEqual(Uint8Array.of(0));
    expect(device.open(records[0]!)).toBeUndefined();
    expect(device.open(records[1]!)).toEqual(Uint8Array.of(1));
    expect(device.open(new Uint8Array(5))).toBeUndefined();
  });

  test("of other words, or with another secret, opens nothing", () => {
    const [manager] = ends();
    const record = manager.seal(Uint8Array.of(1));
    const { id, shared, transcript } = secret;
    for (const other of [
      { id, shared, transcript: shared },
      { id, shared: transcript, transcript },
      { id: id + 1, shared, transcript },
    ])
      expect(new SessionEnd(other, "responder").open(record)).toBeUndefined();
  });

  test("is proved by each end in its own words", () => {
    expect(verifyData(secret, "requester")).not.toEqual(verifyData(secret, "responder"));
  });
});
