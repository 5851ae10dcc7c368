//! A sample is a function of the seed and the row's number: not of the batch, the number of threads or the backend.

use convpc::{Backend, Cpu, Reference};
use testsuite::{
    sampling::{self, ROWS, draw, evidence},
    subjects,
};

#[test]
fn the_batch_does_not_matter_and_the_seed_does() {
    for circuit in sampling::families() {
        subjects().iter().for_each(|subject| sampling::batches(subject, &circuit));
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    for circuit in sampling::families() {
        let data = evidence(&circuit);
        let drawn: Vec<_> = [1, 2, 3]
            .into_iter()
            .map(|threads| draw(&*Cpu::new(Some(threads)).unwrap().load(&circuit).unwrap(), &data, ROWS, 5))
            .collect();
        assert_eq!(drawn[0], drawn[1]);
        assert_eq!(drawn[0], drawn[2]);
    }
}

#[test]
fn backends_draw_the_same() {
    for circuit in sampling::families() {
        subjects().iter().skip(1).for_each(|subject| sampling::like(subject, &Reference, &circuit));
    }
}

#[test]
fn backends_complete_the_same() {
    for circuit in sampling::families() {
        subjects().iter().skip(1).for_each(|subject| sampling::completions(subject, &circuit));
    }
}

#[test]
fn evidence_is_kept_and_nothing_stays_missing() {
    for circuit in sampling::families() {
        subjects().iter().for_each(|subject| sampling::evidence_is_kept(subject, &circuit));
    }
}

#[test]
fn impossible_evidence_is_an_error() {
    subjects().iter().for_each(sampling::impossible_evidence);
}
