/** How an access went, in words. */
import type { AccessPicture } from "./picture.ts";

export const WAYS: Readonly<Record<AccessPicture["way"], string>> = {
  iotlb: "by the IOTLB",
  walk: "by a walk of the tables",
  switch: "turned around by a switch",
  bridge: "passed on by the root complex",
  physical: "at a physical address",
  refused: "refused",
};
