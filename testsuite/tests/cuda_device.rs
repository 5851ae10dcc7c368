//! The CUDA backend on a real GPU, where the environment variable `CONVPC_GPU_TESTS` is set to the device's number. The same
//! checks run on the software device everywhere; here the hardware has its say.

use convpc::{Backend, CudaBackend, Precision};
use testsuite::{Subject, circuits, upward};

#[test]
fn the_upward_pass_on_a_gpu() {
    let Ok(ordinal) = std::env::var("CONVPC_GPU_TESTS") else {
        println!("no GPU was asked for: set CONVPC_GPU_TESTS=0 to test the first");
        return;
    };
    let ordinal = ordinal.parse().expect("CONVPC_GPU_TESTS is the number of a device");
    let backend = CudaBackend::new(ordinal).expect("a GPU");
    println!("{}", backend.description());
    for precision in Precision::ALL {
        let subject = Subject::single(backend.clone().with_precision(precision), precision);
        upward::golden(&subject);
        upward::zeros(&subject);
        upward::gaps(&subject);
        for circuit in circuits::all() {
            for rows in [3, 70] {
                upward::against_float64(&subject, &circuit, &circuits::data(&circuit, rows));
            }
            let executable = subject.backend.load(&circuit).expect("a circuit");
            upward::batches(&*executable, &circuits::data(&circuit, 140));
        }
        let wide = circuits::wide();
        upward::against_float64(&subject, &wide, &circuits::data(&wide, 130));
        println!("{precision}: as float64 within its bound");
    }
}
