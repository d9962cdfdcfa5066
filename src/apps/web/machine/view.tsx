/** The simulated machine: loaded when it is first looked at. */
import type { VNode } from "preact";
import { OnDemand } from "../frame/on-demand.tsx";

export const MachineView = (): VNode => <OnDemand part="machine" />;
