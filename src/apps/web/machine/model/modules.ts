/** What a program on the machine can import: the library's modules by the names that they have in its package, as far as they run in a browser. */
import * as dmalink from "../../../../index.ts";
import * as dmabuf from "../../../../public/dmabuf.ts";
import * as hmm from "../../../../public/hmm.ts";
import * as iommu from "../../../../public/iommu.ts";
import * as iommufd from "../../../../public/iommufd.ts";
import * as process from "../../../../public/process.ts";
import * as sim from "../../../../public/sim.ts";
import { shownHost, type Watched } from "./watched.ts";

/** The modules, for programs whose machine `watched` shows. */
export const modulesFor = (watched: Watched): Readonly<Record<string, Readonly<Record<string, unknown>>>> => ({
  dmalink,
  "dmalink/iommu": iommu,
  "dmalink/sim": { ...sim, SimulatedHost: shownHost(watched) },
  "dmalink/dmabuf": dmabuf,
  "dmalink/hmm": hmm,
  "dmalink/iommufd": iommufd,
  "dmalink/process": process,
});
