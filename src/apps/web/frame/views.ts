/** The views of the page, in the order of its tabs. A view is added here, and nowhere else. */
import type { ComponentType } from "preact";
import { MachineView } from "../machine/view.tsx";
import { FindingsView } from "../views/findings.tsx";
import { OverviewView } from "../views/overview.tsx";
import { QueryView } from "../views/query.tsx";
import { SpaceView } from "../views/space.tsx";
import { StrategiesView } from "../views/strategies.tsx";
import { TablesView } from "../views/tables.tsx";
import { TimelineView } from "../views/timeline.tsx";

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
  { name: "findings", title: "Findings", ofTrace: true, component: FindingsView },
  { name: "timeline", title: "Timeline", ofTrace: true, component: TimelineView },
  { name: "space", title: "Address space", ofTrace: true, component: SpaceView },
  { name: "strategies", title: "Strategies", ofTrace: true, component: StrategiesView },
  { name: "query", title: "Query", ofTrace: true, component: QueryView },
  { name: "tables", title: "Page tables", ofTrace: false, component: TablesView },
  { name: "machine", title: "Machine", ofTrace: false, component: MachineView },
];
