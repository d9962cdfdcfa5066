/** The serial card: its ports, its image, and what becomes of a wrong one. */
import { describe, expect, test } from "vitest";
import type { DmaError } from "../../../../base/index.ts";
import type { LoadStream, SaveStream } from "../../../../platform/index.ts";
import { SerialCard } from "./serial-card.ts";
import { Uart } from "./uart.ts";

const errnoOf = (call: () => unknown): string | undefined => {
  try {
    call();
    return undefined;
  } catch (error) {
    return (error as DmaError).errno;
  }
};

function imageOf(card: SerialCard): Uint8Array {
  const stream = card.takeArc("stop", "stop-copy") as SaveStream;
  const image = new Uint8Array(200);
  const length = stream.read(image);
  card.takeArc("stop-copy", "stop");
  return image.slice(0, length);
}

describe("a port", () => {
  test("gives back what was sent, in order", () => {
    const port = new Uart();
    for (let i = 0; i < 15; i++) port.write(0, i + 1);
    for (let i = 0; i < 15; i++) {
      expect(port.read(5)).toBe(0x01);
      expect(port.read(0)).toBe(i + 1);
    }
    expect([port.read(5), port.read(0)]).toEqual([0x60, 0]);
  });

  test("says overrun when its FIFO is full, which looks empty then, as in Linux's driver", () => {
    const port = new Uart();
    for (let i = 0; i < 17; i++) port.write(0, i + 1);
    expect(port.read(5)).toBe(0x62);
  });

  test("without FIFO holds one byte; clearing it empties it", () => {
    const port = new Uart();
    port.write(2, 0);
    port.write(0, 7);
    port.write(0, 8);
    expect(port.read(0)).toBe(7);
    port.write(0, 9);
    port.write(2, 0x07);
    expect(port.read(5)).toBe(0x60);
  });

  test("keeps its divisor behind DLAB", () => {
    const port = new Uart();
    port.write(3, 0x83);
    port.write(0, 0x12);
    port.write(1, 0x34);
    expect([port.read(0), port.read(1), port.read(3)]).toEqual([0x12, 0x34, 0x83]);
    port.write(3, 0x03);
    expect([port.read(0), port.read(1)]).toEqual([0, 0]);
  });

  test("interrupts when it is empty and asked to, when a byte came, and on modem lines", () => {
    let interrupts = 0;
    const port = new Uart(() => void interrupts++);
    port.write(1, 0x02);
    expect([interrupts, port.read(2)]).toEqual([1, 0xc2]);
    port.write(2, 0x01);
    port.write(1, 0x01);
    port.write(0, 5);
    expect([interrupts, port.read(2)]).toEqual([2, 0xc4]);
    port.write(1, 0x08);
    port.write(4, 0x0b);
    expect(interrupts).toBe(4);
  });

  test("says clear to send, but not while flow control holds it", () => {
    const port = new Uart();
    expect(port.read(6)).toBe(0xb3);
    port.write(2, 0);
    port.write(4, 0x20);
    port.write(0, 1);
    expect(port.read(6)).toBe(0xa2);
  });

  test("has a scratch register, and nothing above it", () => {
    const port = new Uart();
    port.write(7, 0xa5);
    port.write(8, 1);
    expect([port.read(7), port.read(8)]).toEqual([0xa5, 0]);
  });

  test("takes any 36 bytes as its state without harm", () => {
    const port = new Uart();
    port.state.fill(0xff);
    for (let i = 0; i < 40; i++) port.write(i % 8, i);
    for (let i = 0; i < 40; i++) expect(port.read(i % 8)).toBeLessThan(256);
  });
});

describe("a card", () => {
  test.each([1, 2] as const)("with %i ports gives an image that makes another card the same", (ports) => {
    const [a, b] = [new SerialCard({ ports }), new SerialCard({ ports })];
    a.ports.forEach((port, i) => {
      for (let byte = 0; byte < 5 + i; byte++) port.write(0, byte * 3 + i);
      port.write(7, 0x40 + i);
    });
    const image = imageOf(a);
    expect(image).toHaveLength(24 + 36 * ports);
    const load = b.takeArc("stop", "resuming") as LoadStream;
    load.write(image);
    b.takeArc("resuming", "stop");
    expect(b.ports.map(({ state }) => [...state])).toEqual(a.ports.map(({ state }) => [...state]));
    expect(b.ports[0]!.read(0)).toBe(0);
    expect(b.ports[0]!.read(0)).toBe(3);
  });

  test("forgets that a header was wrong, as Linux's driver does, unless it is told to remember", () => {
    for (const remembersBadHeader of [false, true]) {
      const [a, b] = [new SerialCard(), new SerialCard({ remembersBadHeader })];
      const image = imageOf(a);
      image[0]! ^= 1;
      image[24 + 7] = 0x77;
      const load = b.takeArc("stop", "resuming") as LoadStream;
      expect(errnoOf(() => load.write(image))).toBe("EFAULT");
      expect(errnoOf(() => b.takeArc("resuming", "stop"))).toBe(remembersBadHeader ? "EINVAL" : undefined);
      expect(b.ports[0]!.read(7)).toBe(remembersBadHeader ? 0 : 0x77);
    }
  });

  test("refuses more than an image, and the end before all has come", () => {
    const card = new SerialCard();
    const load = card.takeArc("stop", "resuming") as LoadStream;
    expect(errnoOf(() => load.write(new Uint8Array(97)))).toBe("ENOMEM");
    expect(errnoOf(() => card.takeArc("resuming", "stop"))).toBe("EINVAL");
  });

  test("streams end with their session", () => {
    const card = new SerialCard();
    const save = card.takeArc("stop", "stop-copy") as SaveStream;
    save.end();
    expect([errnoOf(() => save.read(new Uint8Array(1))), errnoOf(() => save.preCopyInfo!(false))]).toEqual([
      "ENODEV",
      "ENODEV",
    ]);
  });
});
