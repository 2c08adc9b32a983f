// The button that codes encounters again: asks Airflow's own API for the run, which knows who may start one and keeps who did.
"use strict";

addEventListener("click", async (event) => {
  const button = event.target.closest?.("button[data-recode]");
  if (!button) return;
  const status = document.getElementById("recode-status");
  button.disabled = true;
  status.textContent = "Starting …";
  try {
    const answer = await fetch(button.dataset.api, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ logical_date: null, conf: { recode_release: button.dataset.recode } }),
    });
    const run = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(typeof run.detail === "string" ? run.detail : `Airflow answered ${answer.status}`);
    const link = document.createElement("a");
    link.href = button.dataset.runs + encodeURIComponent(run.dag_run_id);
    link.dataset.airflow = "";
    link.textContent = run.dag_run_id;
    status.replaceChildren("Started: ", link);
  } catch (error) {
    status.textContent = `Nothing was started: ${error.message}`;
    button.disabled = false;
  }
});
