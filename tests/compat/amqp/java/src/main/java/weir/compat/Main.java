package weir.compat;

import java.io.PrintWriter;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.engine.discovery.DiscoverySelectors;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;
import org.junit.platform.launcher.listeners.SummaryGeneratingListener;

/** Runs the tests of this package, or the classes named, and ends with a line of counts. */
public final class Main {
    public static void main(String[] words) {
        LauncherDiscoveryRequestBuilder request = LauncherDiscoveryRequestBuilder.request();
        if (words.length == 0) {
            request.selectors(DiscoverySelectors.selectClass(ClientTest.class),
                DiscoverySelectors.selectClass(RestartTest.class));
        }
        for (String word : words) {
            request.selectors(DiscoverySelectors.selectClass("weir.compat." + word));
        }
        SummaryGeneratingListener summary = new SummaryGeneratingListener();
        TestExecutionListener lines = new TestExecutionListener() {
            @Override
            public void executionFinished(TestIdentifier test, TestExecutionResult result) {
                if (test.isTest()) {
                    System.out.println(result.getStatus() + " " + test.getLegacyReportingName());
                }
            }
        };
        LauncherFactory.create().execute(request.build(), summary, lines);
        var counts = summary.getSummary();
        counts.printFailuresTo(new PrintWriter(System.out, true), 12);
        long skipped = counts.getTestsSkippedCount() + counts.getTestsAbortedCount();
        long failed = Math.max(counts.getTotalFailureCount(), counts.getTestsFailedCount());
        System.out.printf("%d passed, %d failed, %d skipped%n", counts.getTestsSucceededCount(), failed, skipped);
        System.exit(failed > 0 || counts.getTestsSucceededCount() == 0 ? 1 : 0);
    }
}
