/** The views of the page, in the order of its tabs. A view is added here, and nowhere else. */
import type { ComponentType } from "preact";
import { MachineView } from "../machine/view.tsx";
import { OverviewView } from "../views/overview.tsx";

/** One view. */
interface View {
  /** As the URL has it. */
  readonly name: string;
  /** On its tab. */
  readonly title: string;
  /** It shows the open trace; without one, the page asks for one in its place. */
  readonly ofTrace: boolean;
  readonly component: ComponentType;
}

export const VIEWS: readonly View[] = [
  { name: "overview", title: "Overview", ofTrace: true, component: OverviewView },
  { name: "machine", title: "Machine", ofTrace: false, component: MachineView },
];
