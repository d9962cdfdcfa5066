/** The page: shows the frame, gives parts on demand what they share with it, and opens what a server offers. */
import * as signals from "@preact/signals";
import * as preact from "preact";
import * as hooks from "preact/hooks";
import * as jsx from "preact/jsx-runtime";
import { App } from "./frame/app.tsx";
import { openServed } from "./frame/served.ts";
import { startTheme } from "./frame/theme.ts";
import "./style/page.css";

Object.assign(globalThis, { dmalink: { preact, hooks, jsx, signals } });

startTheme();
preact.render(<App />, document.getElementById("page")!);
openServed();
