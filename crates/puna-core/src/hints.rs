//! How a model's maker suggests to draw its tokens.

/// What a model's files say of drawing tokens; `None` where they do not. As in `generation_config.json` and in
/// `general.sampling` of GGUF.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplingHints {
    /// 0 (greedy) or more.
    pub temperature: Option<f32>,
    /// 0 for all tokens.
    pub top_k: Option<u32>,
    /// 0 to 1.
    pub top_p: Option<f32>,
    /// 0 to 1.
    pub min_p: Option<f32>,
    /// Above 0.
    pub repetition_penalty: Option<f32>,
}

impl SamplingHints {
    /// Those of Llama 2 Chat as it was published.
    pub const LLAMA2_CHAT: Self = Self {
        temperature: Some(0.6),
        top_k: None,
        top_p: Some(0.9),
        min_p: None,
        repetition_penalty: None,
    };

    /// Reads each by the name that it has in a file, in the order of the fields; a `top_k` below 1 is none, as some files say
    /// it. `wrong` makes an error of a name, what is expected, and what is found.
    ///
    /// # Errors
    /// What `read` and `wrong` say.
    pub fn read<E>(
        names: [&str; 5],
        read: impl Fn(&str) -> Result<Option<f64>, E>,
        wrong: impl Fn(&str, &str, f64) -> E,
    ) -> Result<Self, E> {
        let ranged = |name: &str, fits: fn(f64) -> bool, expected: &str| match read(name)? {
            Some(x) if !fits(x) => Err(wrong(name, expected, x)),
            found => Ok(found),
        };
        let share = |name: &str| ranged(name, |x| (0.0..=1.0).contains(&x), "a number, 0 to 1");
        let [temperature, top_k, top_p, min_p, repetition_penalty] = names;
        let float = |x: Option<f64>| x.map(|x| x as f32);
        Ok(Self {
            temperature: float(ranged(
                temperature,
                |x| (0.0..=1e9).contains(&x),
                "a number, 0 or more",
            )?),
            top_k: ranged(
                top_k,
                |x| x.fract() == 0.0 && x <= f64::from(u32::MAX),
                "a whole number",
            )?
            .map(|x| x.max(0.0) as u32),
            top_p: float(share(top_p)?),
            min_p: float(share(min_p)?),
            repetition_penalty: float(ranged(
                repetition_penalty,
                |x| x > 0.0 && x <= 1e9,
                "a number above 0",
            )?),
        })
    }

    /// What is said, by name, as the decimal that the file had.
    pub fn stated(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let float = |x: Option<f32>| x.and_then(|x| x.to_string().parse().ok());
        [
            ("temperature", float(self.temperature)),
            ("top_k", self.top_k.map(f64::from)),
            ("top_p", float(self.top_p)),
            ("min_p", float(self.min_p)),
            ("repetition_penalty", float(self.repetition_penalty)),
        ]
        .into_iter()
        .filter_map(|(name, x)| Some((name, x?)))
    }
}
