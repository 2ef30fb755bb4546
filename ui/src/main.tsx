import { render } from "preact";
import { App } from "./app.tsx";
import * as store from "./store.ts";

store.start();
render(<App />, document.getElementById("app")!);
