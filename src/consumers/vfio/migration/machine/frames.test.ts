/** Frames: however the bytes come they are the same frames, and nothing damaged passes for one. */
import { describe, expect, test } from "vitest";
import { type DmaError, Random } from "../../../../base/index.ts";
import { FRAME, FRAME_HEADER_BYTES, FRAME_MOST_BYTES, type Frame, FrameReader, FrameWriter } from "./frames.ts";

const random = Random.fromSeed(9);
const FRAMES: readonly Frame[] = Array.from({ length: 12 }, (_, i) => ({
  type: FRAME.PAGES + (i % 4),
  place: i * 1_000_003,
  payload: Uint8Array.from({ length: [0, 1, 5, 300][i % 4]! }, () => random.below(256)),
}));

const streamOf = (frames: readonly Frame[]): Uint8Array => {
  const writer = new FrameWriter();
  return new Uint8Array(Buffer.concat(frames.map((frame) => writer.encode(frame))));
};

/** The frames that are read, and how it ended. */
function read(bytes: Uint8Array, cuts: Random): { frames: Frame[]; error: string | undefined; isWhole: boolean } {
  const reader = new FrameReader();
  const frames: Frame[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = 1 + cuts.below(90);
    try {
      frames.push(...reader.push(bytes.subarray(at, at + length)));
    } catch (error) {
      return { frames, error: (error as DmaError).errno, isWhole: false };
    }
    at += length;
  }
  return { frames, error: undefined, isWhole: reader.isBetweenFrames };
}

test("frames that come in pieces of any size are the frames that were sent", () => {
  for (let seed = 0; seed < 50; seed++)
    expect(read(streamOf(FRAMES), Random.fromSeed(seed))).toEqual({ frames: FRAMES, error: undefined, isWhole: true });
});

describe("a stream", () => {
  const whole = streamOf(FRAMES);

  test("with any bit changed gives the frames before it and then fails, or waits for bytes that do not come", () => {
    for (let at = 0; at < whole.length; at++) {
      const bytes = whole.slice();
      bytes[at]! ^= 1 << (at % 8);
      const { frames, error } = read(bytes, Random.fromSeed(at));
      expect(error, `byte ${at}`).toBe("EBADMSG");
      expect(frames).toEqual(FRAMES.slice(0, frames.length));
    }
  });

  test("that is cut gives the frames before the cut, and says that it is not whole", () => {
    for (let cut = 0; cut < whole.length; cut++) {
      const { frames, error, isWhole } = read(whole.subarray(0, cut), Random.fromSeed(cut));
      expect(error).toBeUndefined();
      expect(frames).toEqual(FRAMES.slice(0, frames.length));
      expect(isWhole).toBe(streamOf(frames).length === cut);
    }
  });

  test("with a frame missing, doubled or in another place fails there", () => {
    const writer = new FrameWriter();
    const parts = FRAMES.map((frame) => writer.encode(frame));
    for (const changed of [
      parts.toSpliced(3, 1),
      parts.toSpliced(3, 0, parts[3]!),
      [parts[1]!, parts[0]!, ...parts.slice(2)],
    ])
      expect(read(new Uint8Array(Buffer.concat(changed)), Random.fromSeed(1)).error).toBe("EBADMSG");
  });
});

test("a length that is too large is refused before anybody waits for so many bytes", () => {
  const bytes = new FrameWriter().encode({ type: 1, place: 0, payload: new Uint8Array(FRAME_MOST_BYTES + 1) });
  expect(() => new FrameReader().push(bytes.subarray(0, FRAME_HEADER_BYTES))).toThrow("a payload of 1048577 bytes");
});
