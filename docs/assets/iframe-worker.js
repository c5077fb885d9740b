// Browsers start no worker from a page on disk: the theme's search runs in a hidden frame there.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.srcdoc = "<!doctype html>";
      this.started = new Promise((resolve, reject) => {
        frame.onload = () => {
          const worker = frame.contentWindow;
          worker.postMessage = (data) =>
            this.dispatchEvent(new MessageEvent("message", { data }));
          const script = worker.document.createElement("script");
          script.src = url;
          script.onload = () => resolve(worker);
          script.onerror = reject;
          worker.document.head.append(script);
        };
      });
      document.body.append(frame);
    }
    postMessage(data) {
      this.started.then((worker) => worker.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
