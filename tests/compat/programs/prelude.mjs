// The functions that the programs in the documents leave to the application.
globalThis.sendEmail = async (data) => {
  console.log("sendEmail " + JSON.stringify(data));
};

globalThis.processOrder = async (order) => {
  console.log("processOrder " + JSON.stringify(order));
};
