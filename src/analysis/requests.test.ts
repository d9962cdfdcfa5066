import { describe, expect, test } from "vitest";
import { RequestBuilder } from "./requests.ts";

const DEVICE = "0000:00:04.0";

describe("requests, from events", () => {
  test("probe events from try_alloc to destroy make one request with its true bytes", () => {
    const builder = new RequestBuilder();
    builder.reserved(1, DEVICE, "s1");
    builder.linked(0, "s1", { phys: 0x5000, length: 4096, iova: 0x10000 }, "to-device");
    builder.map(2, 0, 0x10, 0x5000, 1);
    builder.linked(0, "s1", { phys: 0x9000, length: 512, iova: 0x11000 }, "to-device");
    builder.map(3, 0, 0x11, 0x9000, 1);
    builder.released(9, "s1");
    builder.unmap(10, 0x10, 2);
    const { requests, order, ambiguous, unmapsOfUnseen } = builder.finish();
    const own = requests.filter((request) => request.kind === "two-step");
    expect(own).toHaveLength(1);
    expect(own[0]).toMatchObject({ device: DEVICE, direction: "to-device", length: 4608, endNs: 9 });
    expect(requests).toHaveLength(1);
    expect(order).toEqual([0, ~0]);
    expect([ambiguous, unmapsOfUnseen]).toEqual([0, 0]);
  });

  test("a dma event names the device of the pages mapped just before it on its CPU", () => {
    const builder = new RequestBuilder();
    builder.map(1, 0, 0x10, 0x5000, 1);
    builder.map(2, 1, 0x20, 0x7000, 1);
    builder.mapped(3, 0, DEVICE, { phys: 0x5040, length: 100, iova: 0x10040 }, "from-device");
    builder.unmap(4, 0x10, 1);
    builder.unmapped(5, DEVICE, 0x10040);
    const { requests, ambiguous } = builder.finish();
    expect(requests[0]).toMatchObject({ device: DEVICE, kind: "one-shot", length: 100, endNs: 4, translated: true });
    expect(requests[1]).toMatchObject({ device: undefined, endNs: undefined });
    expect(ambiguous).toBe(1);
  });

  test("pages that one unmap takes back are one request, whose device is not guessed", () => {
    const builder = new RequestBuilder();
    for (const page of [0, 1, 2]) builder.map(page, 0, 0x10 + page, 0x5000 * (page + 1), 1);
    builder.unmap(9, 0x10, 3);
    const { requests, ambiguous } = builder.finish();
    expect(requests).toMatchObject([{ device: undefined, kind: "unattributed", length: 12288, endNs: 9 }]);
    expect(ambiguous).toBe(1);
  });

  test("a coherent allocation of several runs is one request", () => {
    const builder = new RequestBuilder();
    builder.map(1, 0, 0x10, 0x5000, 1);
    builder.map(2, 0, 0x11, 0x9000, 1);
    builder.allocated(3, 0, DEVICE, 0x10000, 5000);
    expect(builder.finish().requests).toMatchObject([{ kind: "coherent", device: DEVICE, length: 8192 }]);
  });

  test("teardown of what was mapped before the recording is live at start", () => {
    const builder = new RequestBuilder();
    builder.unmap(1, 0x10, 4);
    builder.unmapped(2, DEVICE, 0x10000);
    expect(builder.finish()).toMatchObject({ liveAtStart: 1, unmapsOfUnseen: 1, requests: [] });
  });

  test("without iommu events each dma mapping is a request, ended by its own unmap", () => {
    const builder = new RequestBuilder();
    builder.mapped(1, 0, DEVICE, { phys: 0x5000, length: 4096, iova: 0x5000 }, "to-device");
    builder.mapped(2, 0, DEVICE, { phys: 0x5000, length: 4096, iova: 0x5000 }, "to-device");
    builder.unmapped(3, DEVICE, 0x5000);
    const { requests } = builder.finish();
    expect(requests.map(({ endNs, translated }) => [endNs, translated])).toEqual([
      [undefined, false],
      [3, false],
    ]);
  });

  test("a free of NULL is no teardown", () => {
    const builder = new RequestBuilder();
    builder.unmapped(1, DEVICE, 0);
    expect(builder.finish().liveAtStart).toBe(0);
  });

  test("one address in two domains is two mappings, and said", () => {
    const builder = new RequestBuilder();
    builder.map(1, 0, 0x10, 0x5000, 1);
    builder.map(2, 0, 0x10, 0x5000, 1);
    builder.unmap(3, 0x10, 1);
    builder.unmap(4, 0x10, 1);
    const { requests, mapsOverLive, unmapsOfUnseen } = builder.finish();
    expect(requests.map(({ endNs }) => endNs)).toEqual([3, 4]);
    expect([mapsOverLive, unmapsOfUnseen]).toEqual([1, 0]);
  });

  test("an unmap of absurd length costs no more than what is live", () => {
    const builder = new RequestBuilder();
    builder.map(1, 0, 0x10, 0x5000, 1);
    builder.unmap(2, 0, 2 ** 52);
    expect(builder.finish().requests).toMatchObject([{ endNs: 2 }]);
  });
});
