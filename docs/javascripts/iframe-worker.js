// Search in pages that were opened from the disk. Browsers run no Worker for file: addresses, so its script runs in a
// hidden frame instead; the theme needs `Worker`, `postMessage`, `message` events and `importScripts` of it. Its name
// tells the theme's offline plugin that such a script is there, and that it has to fetch none.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      inside.importScripts = (...urls) => {
        throw new Error(`no scripts can be imported here: ${urls}`);
      };
      // what the script posts comes here, and what is posted to it goes to its listeners and its `onmessage`
      inside.postMessage = (data) => setTimeout(() => this.dispatchEvent(new MessageEvent("message", { data })));
      this.ready = new Promise((loaded) => {
        const script = frame.contentDocument.createElement("script");
        script.src = url;
        script.onload = loaded;
        frame.contentDocument.body.append(script);
      });
      this.postMessage = (data) => this.ready.then(() => inside.dispatchEvent(new MessageEvent("message", { data })));
      this.terminate = () => frame.remove();
    }
  };
}
